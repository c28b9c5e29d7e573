"""The MP table of a machine without ACPI: read from memory after a boot, by a parser of its own, and held against QEMU's own
account of the processors and of where interrupts arrive. (That the latter is so, test_plain_qemu.py shows with real disks.)
"""

import re

import pytest
from mp import EXTINT, INT, NMI, find_mp_table, intx
from plain import CMDLINE, MACHINES, NIGHTLY, disk, parse, run, running

pytestmark = pytest.mark.usefixtures("plain_qemu")

RESULT = "\nresult "  # the last line of the conformance guest
LOCAL_APIC, IO_APIC = 0xFEE00000, 0xFEC00000
APIC, FPU = 1 << 9, 1 << 0  # CPUID.1's EDX
ISA_IRQS = 16
FIRMWARES = [(machine, made_for) for machine in ("microvm", "pc", "q35") for made_for in (machine, "universal")]
# By QEMU's -smp: two sockets of three cores leave gaps, as each number takes whole bits.
PROCESSORS = {"1": [0], "4": [0, 1, 2, 3], "6,sockets=2,cores=3": [0, 1, 2, 4, 5, 6], "64": list(range(64))}


@pytest.fixture
def boot(tmp_path, firmware, conformance_guest):
    """A running QEMU in which the conformance guest has said all it has to say."""

    def started(machine, name, acpi, *options):
        arguments = ("-M", f"{machine},acpi={acpi}", "-m", "128M", "-bios", firmware(name), "-kernel", conformance_guest)
        return running(tmp_path, *arguments, *options)

    return started


def read_table(qemu):
    assert qemu.says(RESULT)
    assert "\nresult ok\n" in qemu.console
    return find_mp_table(qemu.memory(0, 1 << 20))


def apic_ids(qemu):
    """Of all processors, as QEMU has them."""
    return [
        qemu.qmp.command("qom-get", path=cpu["qom-path"], property="apic-id") for cpu in qemu.qmp.command("query-cpus-fast")
    ]


def cpuid_signature(qemu):
    """CPUID.1's EAX of the first processor: family, model, stepping (none of them of the extended kind in QEMU's default)."""
    path = qemu.qmp.command("query-cpus-fast")[0]["qom-path"]
    family, model, stepping = (
        qemu.qmp.command("qom-get", path=path, property=name) for name in ("family", "model", "stepping")
    )
    assert family <= 15
    return family << 8 | (model >> 4) << 16 | (model & 15) << 4 | stepping


@pytest.mark.parametrize(("smp", "ids"), PROCESSORS.items())
@pytest.mark.parametrize(("machine", "name"), FIRMWARES)
def test_the_processors_are_those_that_there_are(boot, machine, name, smp, ids):
    with boot(machine, name, "off", "-smp", smp) as qemu:
        table = read_table(qemu)
        assert ids == sorted(apic_ids(qemu))
        signature = cpuid_signature(qemu)
    assert [processor.apic_id for processor in table.processors] == ids
    assert all(processor.enabled for processor in table.processors)
    assert [processor.apic_id for processor in table.processors if processor.bootstrap] == [0]
    for processor in table.processors:
        assert processor.features & (APIC | FPU) == APIC | FPU
        # A table that is in the ROM as it is knows the family only.
        assert processor.signature == (0x600 if machine == "microvm" and smp == "1" else signature)
    memmap = re.findall(r"^memmap \d+ addr=(0x\w+) size=(0x\w+) type=1$", qemu.console, re.MULTILINE)
    for start, size in ((int(start, 16), int(size, 16)) for start, size in memmap):
        for at in (table.pointer, table.paddr, table.end - 1):
            assert not start <= at < start + size, "in what is RAM to the guest"


@pytest.mark.parametrize("smp", ["1", "4"])
@pytest.mark.parametrize(("machine", "name"), FIRMWARES)
def test_interrupts_arrive_where_the_table_says(boot, machine, name, smp):
    with boot(machine, name, "off", "-smp", smp) as qemu:
        table = read_table(qemu)
    has_pci = machine != "microvm"
    assert table.local_apic == LOCAL_APIC
    assert table.io_apics == {0: IO_APIC}
    assert sorted(table.buses.values()) == (["ISA", "PCI"] if has_pci else ["ISA"])

    isa = [interrupt for interrupt in table.interrupts if interrupt.bus == "ISA"]
    assert all((it.kind, it.low, it.level, it.apic) == (INT, None, None, 0) for it in isa)
    # The timer is on pin 2, where the cascade would be. On pc, PCI has two IRQs for itself.
    without = {2, 10, 11} if machine == "pc" else {2}
    assert {it.irq: it.pin for it in isa} == {irq: irq or 2 for irq in range(ISA_IRQS) if irq not in without}
    assert len(isa) == ISA_IRQS - len(without)

    pci = [interrupt for interrupt in table.interrupts if interrupt.bus == "PCI"]
    assert all((it.kind, it.low, it.level, it.apic) == (INT, False, True, 0) for it in pci)
    slots = range(32) if has_pci else ()
    assert {it.irq: it.pin for it in pci} == {slot << 2 | pin: intx(machine, slot, pin) for slot in slots for pin in range(4)}
    assert len(pci) == 4 * len(slots)
    assert len(table.interrupts) == len(isa) + len(pci)
    assert {it.pin for it in pci} <= ({10, 11} if machine == "pc" else set(range(16, 24)))

    assert [(it.kind, it.irq, it.pin) for it in table.local] == [(EXTINT, 0, 0), (NMI, 0, 1)]


@pytest.mark.parametrize("smp", ["1", "4"])
@pytest.mark.parametrize(("machine", "name"), FIRMWARES)
def test_the_entries_are_sorted_by_their_type(boot, machine, name, smp):
    """Section 4.3 wants it: processors, buses, I/O APICs, interrupts to those, interrupts to the local APICs."""
    with boot(machine, name, "off", "-smp", smp) as qemu:
        table = read_table(qemu)
    assert table.types == sorted(table.types)


@pytest.mark.parametrize(
    ("machine", "name"), [("microvm", "microvm-acpi"), ("pc", "pc"), ("q35", "q35"), ("pc", "universal"), ("q35", "universal")]
)
def test_with_acpi_there_is_none(boot, machine, name):
    with boot(machine, name, "on", "-smp", "4") as qemu:
        assert read_table(qemu) is None
        assert re.search(r"rsdp=0x0*[1-9a-f]", qemu.console)


if NIGHTLY:  # tests/build-small-kernel takes minutes

    @pytest.mark.parametrize("pci", ["", "pci=nomsi"])
    @pytest.mark.parametrize("kernel", ["vmlinux-small", "vmlinuz-small"])
    @pytest.mark.parametrize(("machine", "name"), FIRMWARES)
    def test_linux_finds_its_processors_and_interrupts_by_it(
        tmp_path, guest_file, firmware, initrd, machine, name, kernel, pci
    ):
        spec = MACHINES[machine if machine == "microvm" else f"{machine}-no-acpi"]
        text = run(
            *("-M", spec.qemu, "-m", "256M", "-smp", 3, "-bios", firmware(name), "-kernel", guest_file(kernel)),
            *("-initrd", initrd, "-append", f"{CMDLINE} {pci} giveup=30"),
            *disk(tmp_path / "disk", spec.disk or "virtio-blk-device"),
        )
        said = parse(text)
        assert said.cpus == 3
        assert "Intel MultiProcessor Specification v1.4" in text
        assert "smp: Brought up 1 node, 3 CPUs" in text
        assert said.disks == {"vda": f"disk d0 of {tmp_path / 'disk'}"}
        if pci or machine == "microvm":
            assert [line for line in said.interrupts if re.search(r"IO-APIC .*virtio", line)]
