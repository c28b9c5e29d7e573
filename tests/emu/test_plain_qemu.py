"""The blob as anybody uses it: on the command line of a plain QEMU, with no pvhboot in sight, to user space and out again.

The normal run has every pair of values, the nightly one (PVHBOOT_NIGHTLY=1) every combination.
"""

import re
import struct

import pytest
from mp import intx, intx_irq
from pairwise import everything, pairs_of, pairwise
from plain import CMDLINE, MACHINES, NIGHTLY, complaints, disk, parse, run, run_linux, running
from pvhboot.loader.sizes import parse_memory
from pvhboot.shim.machines import GIB, KIB, MIB

FACTORS = {
    "machine": ["microvm-acpi", "microvm", "pc", "q35"],
    "cpus": [1, 4],
    "memory": ["96M", "512M", "3G", "5G"],
    "kernel": ["vmlinux", "vmlinuz"],
    "made_for": ["one machine", "all"],
    "version": ["6.1", "6.12"],
    "dma": ["on", "off"],
}
ROWS = pairwise(FACTORS)
# QEMU's pc_piix.c, pc_q35.c, microvm.c: RAM of more than so many bytes is parted, and the first part then has so many.
PARTED = {
    "microvm-acpi": (3 * GIB, 3 * GIB),
    "microvm": (3 * GIB, 3 * GIB),
    "pc": (3584 * MIB - 1, 3 * GIB),
    "q35": (2816 * MIB - 1, 2 * GIB),
}
TABLES_MAX = 512 * KIB  # ACPI's


def test_the_small_table_has_every_pair():
    wanted = set().union(*map(pairs_of, everything(FACTORS)))
    assert len(wanted) == 136  # by hand: of 4, 2, 4, 2, 2, 2, 2 the products two by two
    assert set().union(*map(pairs_of, ROWS)) == wanted
    assert len(ROWS) <= 20


def firmware_name(machine, made_for):
    return "universal" if made_for == "all" else MACHINES[machine].firmware


def check_memory(said, machine, memory):
    """What the kernel counts, and the ranges that the firmware has told it of."""
    size = parse_memory(memory)
    (managed,) = re.findall(r"Memory: \d+K/(\d+)K available", said.text)
    assert 0 < size - int(managed) * KIB < MIB  # the hole in front of 1 MiB, and tables
    # The kernel, its page structures and what it reserves take the rest.
    assert size - said.memory < 64 * MIB + size // 32
    whole, low_end = PARTED[machine] if size > PARTED[machine][0] else (size, size)
    below, *others = said.memmap
    low = [span for span in others if span[0] >= MIB and span[0] < 4 * GIB]
    assert below[0] == 0
    assert 0x9E000 <= below[1] <= 0xF0000
    assert low[0][0] == MIB
    assert low[-1][1] <= low_end
    tables = low_end - MIB - sum(end - start for start, end in low)
    if MACHINES[machine].acpi:  # its tables lie at the end of low RAM or below 1 MiB
        assert re.search(r"BIOS-e820: \[mem 0x\w+-0x\w+\] ACPI (?:data|NVS)", said.text)
        assert 0 <= tables <= TABLES_MAX
    else:
        assert tables == 0
    high = [span for span in others if span[0] >= 4 * GIB]
    assert high == ([(4 * GIB, 4 * GIB + size - low_end)] if size > whole else [])


@pytest.mark.usefixtures("plain_qemu")
@pytest.mark.parametrize(tuple(FACTORS), everything(FACTORS) if NIGHTLY else ROWS)
def test_linux_reaches_user_space_and_leaves(
    tmp_path, guest_file, firmware, initrd, machine, cpus, memory, kernel, made_for, version, dma
):
    spec = MACHINES[machine]
    cmdline = f"{CMDLINE} end=poweroff" if spec.acpi else CMDLINE
    has_disk = spec.disk and version == "6.1"  # the initrd has modules for that one
    line = [
        *("-M", spec.qemu, "-smp", cpus, "-m", memory, "-global", f"fw_cfg_io.dma_enabled={dma}"),
        *("-bios", firmware(firmware_name(machine, made_for)), "-kernel", guest_file(f"{kernel}-{version}")),
        *("-initrd", initrd, "-append", cmdline, *(disk(tmp_path / "disk", spec.disk) if has_disk else [])),
    ]
    text = run_linux(cpus, *line)
    said = parse(text)
    assert said.cmdline == cmdline, text[-3000:]
    check_memory(said, machine, memory)
    assert "SMBIOS 2.8 present." in text or spec.firmware.startswith("microvm")
    if spec.acpi:
        assert said.cpus == cpus
        assert "ACPI: Using ACPI (MADT) for SMP configuration information" in text
        assert "reboot: Power down" in text
        assert not complaints(text)
    else:
        assert said.cpus == 1  # Debian's kernel does not read an MP table
        assert "reboot: machine restart" in text
        assert [line for line in complaints(text) if "A valid RSDP was not found" not in line] == []
    if has_disk:
        assert said.disks == {"vda": f"disk d0 of {tmp_path / 'disk'}"}


# Slots of all four PIRQs; on q35 some more, of the ICH9's own, which are routed otherwise.
SLOTS = {"pc": (2, 3, 4, 5), "q35": (1, 2, 3, 4, 25, 26, 30)}


@pytest.mark.usefixtures("plain_qemu")
@pytest.mark.parametrize(
    ("machine", "acpi", "made_for", "msi"),
    everything({"machine": ["pc", "q35"], "acpi": [True, False], "made_for": ["one machine", "all"], "msi": [True, False]})
    if NIGHTLY
    else [  # with ACPI and MSI the test above has disks too
        ("pc", True, "all", False),
        ("q35", True, "one machine", False),
        ("pc", False, "one machine", False),
        ("q35", False, "all", False),
        ("pc", False, "all", True),
        ("q35", False, "one machine", True),
    ],
)
def test_disks_are_read_by_interrupts(tmp_path, guest_file, firmware, initrd, machine, acpi, made_for, msi):
    """Without MSI each disk interrupts by INTA# of its slot: one that arrives elsewhere leaves the reader waiting."""
    disks = [
        option
        for slot in SLOTS[machine]
        for option in disk(tmp_path / str(slot), "virtio-blk-pci", name=f"d{slot}", more=f"addr={slot:#x}")
    ]
    text = run(
        *("-M", f"{machine},acpi={'on' if acpi else 'off'}", "-m", "256M", "-bios", firmware(firmware_name(machine, made_for))),
        *("-kernel", guest_file("vmlinux-6.1"), "-initrd", initrd),
        *("-append", f"{CMDLINE} {'' if msi else 'pci=nomsi'} giveup=30 {'end=poweroff' if acpi else ''}", *disks),
    )
    said = parse(text)
    assert set(said.disks.values()) == {f"disk d{slot} of {tmp_path / str(slot)}" for slot in SLOTS[machine]}
    # What the kernel's interrupts are called: number, counts, controller, its pin, devices.
    arrives = {
        device: int(pin or number)
        for number, pin, devices in re.findall(
            r"^ *(\d+): +\d+ +(?:XT-PIC|IO-APIC +(\d+)-\w+) +(\S.*)$", "\n".join(said.interrupts), re.M
        )
        for device in devices.split(", ")
    }
    where = intx if acpi else intx_irq
    if not msi and (machine == "q35" or not acpi):  # with ACPI, Linux itself gives IRQs to the i440FX's PIRQs
        expected = {f"virtio{at}": where(machine, slot, 0) for at, slot in enumerate(SLOTS[machine])}
        assert expected.items() <= arrives.items()


@pytest.mark.usefixtures("plain_qemu")
@pytest.mark.parametrize(
    ("machine", "made_for", "kernel", "memory", "panic"),
    [
        ("microvm", "one machine", None, "128M", "0xf0 NO_KERNEL"),
        ("microvm-acpi", "all", None, "128M", "0xf0 NO_KERNEL"),
        ("pc", "one machine", None, "128M", "0xf0 NO_KERNEL"),
        ("q35", "all", None, "128M", "0xf0 NO_KERNEL"),
        # Has a Multiboot header, which QEMU prefers: then it has no initrd as such.
        ("microvm", "one machine", "xen-shim", "128M", "0xf2 INITRD_RAM"),
        ("q35", "one machine", "xen-shim", "128M", "0xf2 INITRD_RAM"),
        ("microvm", "one machine", "vmlinux-6.1", "16M", "0xf4 KERNEL_RAM"),  # QEMU loads it all the same
        ("pc", "all", "vmlinux-6.1", "32M", "0xf4 KERNEL_RAM"),
        ("microvm", "one machine", "vmlinuz-6.12", "16M", "0xf4 KERNEL_RAM"),
        ("q35", "all", "vmlinuz-6.1", "64M", "0xf4 KERNEL_RAM"),
    ],
)
def test_what_cannot_boot_is_a_named_panic(firmware, tmp_path, guest_file, machine, made_for, kernel, memory, panic):
    options = ["-kernel", guest_file(kernel)] if kernel else []
    blob = firmware(firmware_name(machine, made_for))
    with running(tmp_path, "-M", MACHINES[machine].qemu, "-m", memory, "-bios", blob, *options) as qemu:
        assert qemu.wait(lambda: qemu.debug.endswith("\n"))
        assert qemu.debug.startswith(f"pvhboot panic {panic}: ")
        assert qemu.debug.count("\n") == 1


@pytest.mark.usefixtures("plain_qemu")
@pytest.mark.parametrize("version", ["6.1", "6.12"])
def test_a_bzimage_boots_from_the_memory_on_that_its_header_asks_for(firmware, tmp_path, guest_file, version):
    """It unpacks itself at pref_address and needs init_size bytes there (Linux Documentation/x86/boot.rst)."""
    kernel = guest_file(f"vmlinuz-{version}")
    with kernel.open("rb") as file:
        (pref_address, init_size) = struct.unpack_from("<QI", file.read(0x264), 0x258)
    least = pref_address + init_size
    step = 8 * KIB  # QEMU's RAM is a multiple of that
    assert least % step == 0
    common = ["-M", "microvm,acpi=off", "-bios", firmware("microvm"), "-kernel", kernel]
    common += ["-append", f"{CMDLINE} earlyprintk=ttyS0"]
    with running(tmp_path, *common, "-m", f"{least >> 10}K") as qemu:
        assert qemu.says("Linux version"), qemu.debug
    with running(tmp_path, *common, "-m", f"{least - step >> 10}K") as qemu:
        assert qemu.wait(lambda: qemu.debug.endswith("\n"))
        assert qemu.debug.startswith("pvhboot panic 0xf4 KERNEL_RAM: ")
        assert qemu.console == ""
