"""What qboot, as Debian 12 ships it, does on QEMU's microvm: tests of a firmware that somebody else has written."""

import pytest

RAM, RESERVED, NVS = 1, 2, 4  # types of the memory map
KIB, MIB = 1 << 10, 1 << 20

# The clauses of the ABI that qboot does not meet, with or without an initrd: TR and MTRRs are left as the reset has left them,
# and the memory map is said to have one entry more than were written.
KNOWN = ("cpu.tr", "cpu.mtrr", "memmap.count", "memmap.entries", "memmap.sorted")

# What it tells of memory below 1 MiB, whatever the host says.
LOW = [(0, 639 * KIB, RAM), (639 * KIB, KIB, RESERVED), (0xD0000, 128 * KIB, NVS), (0xF0000, 64 * KIB, RESERVED)]


@pytest.fixture
def boot(pvh, qboot):
    """Boots to the kernel's entry: the machine, and what the kernel would find."""

    def boot(**options):
        machine = pvh(firmware=qboot, machine="microvm", **options)
        return machine, machine.run_until_handoff()

    return boot


def test_the_handoff_meets_the_abi_but_for_what_is_known(boot, pvh_engine):
    _, handoff = boot(append="quiet")
    handoff.check_abi(allow=KNOWN, strict=pvh_engine != "qemu")  # which does not let us see the MTRRs


def test_the_reserved_field_of_a_module_is_garbage(boot):
    _, handoff = boot(initrd=b"an initrd")
    handoff.check_abi(allow=(*KNOWN, "modules.entries"), strict=True)


@pytest.mark.parametrize(
    ("memory", "high"),
    [
        ("64M", [(MIB, 63 * MIB, RAM)]),
        ("2G", [(MIB, 2047 * MIB, RAM)]),
        ("5G", [(MIB, 3071 * MIB, RAM), (4096 * MIB, 2048 * MIB, RAM)]),
    ],
)
def test_the_memory_map_is_the_hosts(boot, memory, high):
    _, handoff = boot(memory=memory)
    assert handoff.start_info.memmap[:-1] == [*LOW, *high]


def test_what_the_host_reserves_is_reserved(boot):
    _, handoff = boot(memory="64M", reserve=["1M@32M"])
    assert (32 * MIB, MIB, RESERVED) in handoff.start_info.memmap


@pytest.mark.parametrize("length", [0, 1, 255, 2047, 4096])
def test_a_command_line_arrives_whole(boot, length):
    _, handoff = boot(append="x" * length)
    assert handoff.start_info.cmdline == "x" * length


def test_the_initrd_lies_where_the_host_wants_it(boot):
    data = bytes(range(256)) * 100
    machine, handoff = boot(memory="64M", initrd=data)
    (initrd,) = handoff.start_info.modules
    assert initrd.size == len(data)
    assert initrd.end <= 64 * MIB
    assert machine.memory[initrd.paddr : initrd.end] == data


def test_it_speaks_to_fw_cfg_and_to_nobody_else(boot):
    machine, _ = boot()
    ports = {access.address for access in machine.io_log if access.device not in ("fw_cfg", "fw_cfg-dma")}
    assert ports == {0xCF8, 0xCFC}  # is there a PCI bus? Nobody answers
    assert len(machine.io_log) == 74


def test_without_dma_the_same_is_handed_over(boot):
    _, by_dma = boot(append="quiet")
    _, by_port = boot(append="quiet", dma=False)
    assert by_port.start_info == by_dma.start_info


def test_a_host_without_a_memory_map_is_refused(pvh, qboot):
    machine = pvh(firmware=qboot, machine="microvm", fw_cfg={"etc/e820": None})
    with pytest.raises(AssertionError, match="hlt with interrupts off"):
        machine.run_until_handoff(max_instructions=100_000)
    assert machine.debug_console == ""  # it does not say why


def test_the_guest_sees_what_is_wrong(booted):
    with booted.checkpoint():
        assert booted.run_until_exit() == 4  # checks that it made and that failed
    assert booted.ip == booted.plan.entry


def test_the_guest_notices_a_lost_start_info(booted):
    with booted.checkpoint():
        booted.registers["ebx"] += 4
        booted.run_until(console="check magic FAIL")
