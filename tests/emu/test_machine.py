"""Machine: driven, looked at and written to by a test, on each engine that can be."""

import re

import pytest
from pvhboot.emu.bus import Access
from pvhboot.emu.machine import NotReached
from pvhboot.shim.abi.devices import COM1_PORT, DEBUG_EXIT_PORT
from pvhboot.shim.abi.elf import PF_R, PF_X, PT_LOAD, PT_NOTE
from pvhboot.shim.abi.paging import PTE_LARGE, PTE_PRESENT
from pvhboot.shim.abi.pvh import XEN_HVM_START_MAGIC_VALUE
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MIB, MICROVM
from pvhboot.shim.stock import default_blob

RAM, RESERVED = 1, 2
OWN_PORT, OWN_PADDR = 0x600, 0xFE000000


def rom_of(code):
    """A ROM that executes 16-bit code from its reset vector on."""
    return code.ljust(0xFFF0, b"\xf4") + b"\xe9\x0d\x00".ljust(16, b"\xf4")  # jmp to the start of the segment


@pytest.fixture
def booted(pvh):
    """A machine at the entry of the conformance guest."""
    machine = pvh(machine="microvm", memory="64M", append="quiet")
    machine.run_until_handoff()
    return machine


def test_a_machine_stands_at_its_reset_vector(pvh, engine_name):
    machine = pvh(engine=engine_name)
    assert machine.ip == 0xFFFFFFF0
    assert str(machine.where).startswith("reset_vector (reset.s:")
    assert machine.registers["cr0"] == 0x60000010
    assert machine.segments["cs"].base == 0xFFFF0000
    assert (machine.console, machine.debug_console, machine.post_codes, machine.io_log) == ("", "", [], [])
    assert machine.stop is None


def test_what_a_kernel_would_find(pvh, pvh_engine):
    machine = pvh(machine="microvm", memory="64M", append="quiet", initrd=b"an initrd")
    handoff = machine.run_until_handoff()
    handoff.check_abi()
    info = handoff.start_info
    assert info.magic == XEN_HVM_START_MAGIC_VALUE
    assert info.cmdline == "quiet"
    assert (0x100000, 63 * MIB, RAM) in info.memmap
    (initrd,) = info.modules
    assert (initrd.size, initrd.cmdline) == (len(b"an initrd"), None)
    assert machine.memory[initrd.paddr : initrd.end] == b"an initrd"
    assert handoff.registers["eip"] == machine.plan.entry
    assert handoff.engine == pvh_engine


def test_the_memory_map_is_a_list_of_tuples(pvh):
    handoff = pvh(memory="64M").run_until_handoff()
    assert handoff.start_info.memmap == [(0, 64 * MIB, RAM), (0xFFFF0000, 0x10000, RESERVED)]


def test_a_run_to_a_label_an_address_and_a_function(pvh, engine_name):
    machine = pvh(engine=engine_name)
    machine.run_until("protected_mode")
    assert machine.where.symbol == "protected_mode"
    machine.run_until(machine.blob.symbols["handoff"])
    assert str(machine.where).startswith("handoff (handoff.s:")
    machine.run_until(machine.plan.entry)
    assert machine.handoff.registers == machine.registers
    again = pvh(engine=engine_name)
    again.run_until(lambda m: m.registers["cr0"] & 1)
    assert again.registers["cr0"] & 1
    assert again.ip < pvh(engine=engine_name).places.find("protected_mode")


def test_a_function_that_holds_already_executes_nothing(pvh):
    machine = pvh()
    machine.run_until(lambda m: m.ip == 0xFFFFFFF0)
    assert machine.instructions == 0


def test_a_run_to_a_write_to_a_port(pvh, engine_name):
    machine = pvh(engine=engine_name)
    machine.run_until(port=COM1_PORT, value=ord("v"))
    assert machine.console == "pv"
    assert machine.io_log[-1] == Access("out", COM1_PORT, 1, ord("v"), "serial")
    assert machine.handoff is not None
    machine.run_until(port=DEBUG_EXIT_PORT)
    assert machine.stop.value == 0


def test_a_run_behind_the_instruction_that_writes(pvh, engine_name):
    """mov dx, 0x402; mov al, 'x'; out dx, al; hlt"""
    machine = pvh(engine=engine_name, firmware=rom_of(b"\xba\x02\x04\xb0\x78\xee\xf4"), machine="microvm")
    machine.run_until(port=0x402)
    assert machine.ip == 0xFFFF0006
    assert machine.debug_console == "x"


def test_a_load_from_a_device_is_over_where_the_machine_is_paused(pvh, engine_name):
    """mov eax, [the device's]; inc ebx; at the kernel's entry."""
    machine = pvh(engine=engine_name, devices={range(OWN_PADDR, OWN_PADDR + 0x1000): Counter()})
    machine.run_until_handoff()
    code = b"\x8b\x05" + OWN_PADDR.to_bytes(4, "little") + b"\xeb\x00\x43"
    machine.memory[0x100000 : 0x100000 + len(code)] = code
    machine.board.bus.listeners.append(lambda _access: machine.cpu.pause())
    machine.cpu.run_to(())
    assert machine.registers["eax"] == 1
    assert machine.ip in (0x100006, 0x100008)  # unicorn goes on to the next jump


def test_texts_are_waited_for_one_behind_the_other(pvh, engine_name):
    machine = pvh(engine=engine_name)
    machine.run_until(console="check ")
    first = len(machine.console)
    machine.run_until(console="check ")
    assert len(machine.console) > first
    assert machine.console.endswith("check ")
    machine.run_until(console="result ok")
    with pytest.raises(NotReached, match=r"^'check ' on the console again \(it was printed before .*\) was not reached: exit"):
        machine.run_until(console="check ")


def test_a_text_on_the_debug_console(pvh):
    """A host without a memory map: the firmware says so, and halts."""
    machine = pvh(machine="microvm", fw_cfg={"etc/e820": None})
    machine.run_until(debug_console="e820")
    assert machine.stop is None
    with pytest.raises(NotReached):
        machine.run_until_handoff()
    assert machine.stop.reason == "halt"


def test_the_end_of_a_run_is_told_where_something_else_was_waited_for(pvh):
    machine = pvh(machine="microvm", fw_cfg={"etc/e820": None})
    with pytest.raises(NotReached) as caught:
        machine.run_until("handoff")
    lines = str(caught.value).splitlines()
    assert lines[0] == "handoff was not reached: halt: hlt with interrupts off"
    assert re.fullmatch(r"  at 0x\w+, panic_halt\S* \(\w+\.s:\d+\)", lines[1])
    assert re.fullmatch(r"  debug console: .*e820.*", lines[2])


def test_a_limit_of_instructions_counts_from_here(pvh):
    machine = pvh()
    machine.step(10)
    with pytest.raises(NotReached, match="limit: 30 instructions have been executed"):
        machine.run_until_handoff(max_instructions=20)


def test_steps(pvh, engine_name):
    machine = pvh(engine=engine_name, firmware=rom_of(b"\x40\x40\xf4"), machine="microvm")  # inc ax, twice; hlt
    machine.step(3)
    assert machine.registers["eax"] == 2
    machine.step()
    assert machine.stop.reason == "halt"
    with pytest.raises(NotReached, match="the end of step 1 of 2 was not reached: halt"):
        machine.step(2)


def test_the_value_of_an_exit_or_another_end(pvh, engine_name):
    assert pvh(engine=engine_name).run_until_exit() == 0
    halted = pvh(engine=engine_name, firmware=rom_of(b"\xf4"), machine="microvm")
    with pytest.raises(NotReached, match="an exit by the guest was not reached: halt"):
        halted.run_until_exit()


def test_registers_and_memory_are_written(pvh, engine_name):
    machine = pvh(engine=engine_name, machine="microvm")
    machine.run_until_handoff()
    machine.registers["ebx"] = 0x7000
    assert machine.registers["ebx"] == 0x7000
    machine.memory[0x100000] = 0xF4
    machine.memory[0x100001:0x100003] = b"\x90\x90"
    assert machine.memory[0x100000:0x100003] == b"\xf4\x90\x90"
    with pytest.raises(NotReached, match="halt"):
        machine.run_until(port=COM1_PORT)


def test_numbers_and_strings_in_memory(booted):
    ebx = booted.registers["ebx"]
    assert booted.memory.number(ebx) == XEN_HVM_START_MAGIC_VALUE
    assert booted.memory.string(booted.memory.number(ebx + 24, 8)) == b"quiet"  # cmdline_paddr
    booted.memory[0x200000:0x220000] = b"x" * 0x20000
    with pytest.raises(BootError, match="does not end within 65536 bytes"):
        booted.memory.string(0x200000)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda m: m.memory.__setitem__(0x1000, 256), r"memory\[0x1000\] takes a byte, not 256"),
        (lambda m: m.memory.__setitem__(slice(0, 4), b"x"), r"memory\[0x0:0x4\] takes 4 bytes, not b'x'"),
        (lambda m: m.memory[0x1000:], r"a piece of memory is memory\[start:end\]"),
        (lambda m: m.memory[1 << 40], "no memory at 0x10000000000"),
        (lambda m: m.registers["rax"], "no register 'rax'; there is: eax, ebx"),
        (lambda m: m.registers.__setitem__("cr0", 1), "cr0 cannot be written"),
        (lambda m: m.registers.__setitem__("eax", 1 << 32), r"registers\['eax'\] takes a number of 32 bits, not 4294967296"),
        (lambda m: m.registers.__setitem__("eax", -1), r"registers\['eax'\] takes a number of 32 bits, not -1"),
        (lambda m: m.handoff.registers.__setitem__("eax", 1), "only a machine's can be set"),
        (lambda m: m.io_log.of("fwcfg"), "no device 'fwcfg' on this board; there is: cmos, debug-exit"),
        (lambda m: m.run_until("nowhere"), "no symbol 'nowhere'"),
        (lambda m: m.run_until(), "run_until takes one of"),
        (lambda m: m.run_until("handoff", port=1), "run_until takes one of"),
        (lambda m: m.run_until(console=""), "an empty text for console"),
        (lambda m: m.run_until_exit(max_instructions=0), "max_instructions=0: give a number above 0"),
        (lambda m: m.handoff.check_abi(allow="cpu.trr"), r"no clause 'cpu\.trr'; there is: entry\.eip, cpu\.cr0,"),
    ],
)
def test_what_cannot_be_done_with_a_machine(booted, write, message):
    with pytest.raises(BootError, match=message):
        write(booted)


def test_a_rom_is_not_written_to(pvh):
    with pytest.raises(BootError, match="0xffffffff lies in the ROM"):
        pvh().memory[0xFFFFFFFF] = 0


def test_the_handoff_is_left_behind(booted):
    booted.step()
    with pytest.raises(BootError, match="has left the kernel's entry behind"):
        booted.run_until_handoff()


def test_what_the_check_says_of_a_handoff_stays_whatever_the_guest_does(booted):
    booted.memory[booted.registers["ebx"]] = 0
    booted.handoff.check_abi()
    assert booted.handoff.start_info.magic == XEN_HVM_START_MAGIC_VALUE


def test_the_accesses_to_a_device_or_a_port(booted):
    log = booted.io_log
    assert log.of("fw_cfg-dma") == [access for access in log if access.device == "fw_cfg-dma"] != []
    assert log.of(0x518, kind="out") == log.of(range(0x515, 0x51C)) != []
    assert log.of(0x514).values == [int.from_bytes(b"QEMU", "little")]  # the half of the signature that is asked for
    assert log.of("serial") == []


def test_a_checkpoint_gives_all_back(booted):
    before = (booted.ip, booted.registers, booted.io_log, booted.console, booted.handoff, booted.memory[0:0x10000])
    for _ in range(2):
        with booted.checkpoint():
            booted.memory[0x7000] = 1
            booted.registers["ebx"] += 4
            booted.run_until(console="check magic FAIL")
            assert booted.run_until_exit() > 0
        now = (booted.ip, booted.registers, booted.io_log, booted.console, booted.handoff, booted.memory[0:0x10000])
        assert now == before
        assert booted.stop is None


def test_a_checkpoint_before_the_handoff(pvh):
    machine = pvh()
    with machine.checkpoint():
        machine.run_until_handoff().check_abi()
        machine.run_until(console="check ")
    assert machine.handoff is None
    assert machine.ip == 0xFFFFFFF0
    machine.run_until_handoff().check_abi()
    machine.run_until(console="pvh")  # not behind what was forgotten


def test_a_failure_within_two_checkpoints_is_told_of_the_inner_one(booted):
    booted.memory[0x100000:0x100004] = b"\x90" * 4

    def fail():
        with booted.checkpoint():
            booted.step()
            with booted.checkpoint():
                booted.step(2)
                raise ValueError("of the test")

    with pytest.raises(ValueError, match="of the test"):
        fail()
    assert booted.failed.point.ip == 0x100003
    assert booted.ip == 0x100000
    booted.registers["eax"] = 1
    assert booted.failed is None


def test_a_device_that_holds_its_machine_does_not_take_it_back(pvh):
    device = Counter()
    device.machine = machine = pvh(devices={OWN_PORT: device})

    def fail():
        with machine.checkpoint():
            machine.step()
            device.reads = 1
            raise ValueError("of the test")

    with pytest.raises(ValueError, match="of the test"):
        fail()
    assert machine.failed.point.instructions == 1
    assert (device.reads, machine.instructions) == (0, 0)


def test_a_symbol_of_a_kernel_that_is_mapped_elsewhere(pvh):
    """As Linux's are: linked high, reached when paging is on."""
    tables, entry, offset = 0x1000, 0x1000000, 0xC0000000
    code = (
        b"\xb8" + tables.to_bytes(4, "little") + b"\x0f\x22\xd8"  # cr3
        b"\x0f\x20\xe0\x83\xc8\x10\x0f\x22\xe0"  # cr4 |= PSE
        b"\x0f\x20\xc0\x0d\x00\x00\x00\x80\x0f\x22\xc0"  # cr0 |= PG
        b"\xb8" + (offset + entry + 0x40).to_bytes(4, "little") + b"\xff\xe0"  # jmp to main
    ).ljust(0x40, b"\xf4") + b"\x90\xf4"  # fmt: skip
    notes = note(b"Xen\0", 18, entry.to_bytes(4, "little"))
    segments = [
        ElfSegment(PT_LOAD, entry, code, len(code), PF_R | PF_X, 16, offset + entry),
        ElfSegment(PT_NOTE, 0, notes, len(notes), PF_R, 4, 0),
    ]
    machine = pvh(kernel=write_elf(32, entry, segments, {"main": offset + entry + 0x40}))
    machine.run_until_handoff()
    large = [number << 22 | PTE_LARGE | PTE_PRESENT for number in range(1024)]
    large[offset >> 22 :] = large[: 1024 - (offset >> 22)]
    machine.memory[tables : tables + 0x1000] = b"".join(each.to_bytes(4, "little") for each in large)
    machine.run_until("main")
    assert (machine.ip, str(machine.where)) == (offset + entry + 0x40, "main")


def test_code_that_is_written_under_paging_is_executed(pvh):
    """inc ecx becomes dec ecx in a loop that has run already."""
    machine = pvh()
    machine.run_until_handoff()
    tables, entry = 0x300000, machine.plan.entry
    pages = b"".join((number << 22 | PTE_LARGE | PTE_PRESENT).to_bytes(4, "little") for number in range(1024))
    machine.memory[tables : tables + 0x1000] = pages
    code = (
        b"\xb8" + tables.to_bytes(4, "little") + b"\x0f\x22\xd8"  # cr3
        b"\x0f\x20\xe0\x83\xc8\x10\x0f\x22\xe0"  # cr4 |= PSE
        b"\x0f\x20\xc0\x0d\x00\x00\x00\x80\x0f\x22\xc0"  # cr0 |= PG
    )  # fmt: skip
    machine.memory[entry : entry + len(code) + 3] = code + b"\x41\xeb\xfd"  # inc ecx; jmp to it
    loop = entry + len(code)
    for _ in range(3):
        machine.run_until(loop)
    before = machine.registers["ecx"]
    machine.memory[loop] = 0x49
    machine.run_until(loop)
    assert machine.registers["ecx"] == before - 1


def test_clauses_that_are_allowed(pvh):
    machine = pvh(firmware=default_blob(MICROVM), machine="microvm")
    machine.run_until("handoff")
    machine.registers["eflags"] = machine.registers["eflags"] | 1 << 9
    handoff = machine.run_until_handoff()
    with pytest.raises(AssertionError, match=r"(?s)^1 of \d+ clauses of the PVH ABI is not met:\n  cpu\.eflags +\S.*$"):
        handoff.check_abi()
    handoff.check_abi(allow="cpu.eflags")
    handoff.check_abi(allow=("cpu.eflags", "cpu.tr"))
    with pytest.raises(AssertionError, match=r"^allowed to be violated, but met \(take them off `allow`\): cpu\.tr$"):
        handoff.check_abi(allow=("cpu.eflags", "cpu.tr"), strict=True)


class Counter:
    """A register that counts how often it was read, and keeps what was written."""

    def __init__(self):
        self.reads, self.written = 0, []

    def read(self, offset, size):  # noqa: ARG002 - a Device has it
        self.reads += 1
        return self.reads

    def write(self, offset, size, value):
        self.written.append((offset, size, value))


def test_a_device_of_the_test_at_ports(pvh, engine_name):
    """mov dx, 0x600; in al, dx; in al, dx; mov dx, 0x602; out dx, ax; hlt"""
    device = Counter()
    code = b"\xba\x00\x06\xec\xec\xba\x02\x06\xef\xf4"
    ports = range(OWN_PORT, OWN_PORT + 4)
    machine = pvh(engine=engine_name, firmware=rom_of(code), machine="microvm", devices={ports: device})
    machine.run_until(port=OWN_PORT + 2)
    assert (device.reads, device.written) == (2, [(2, 2, 2)])
    assert machine.io_log.of("Counter").values == [1, 2, 2]


@pytest.mark.parametrize("answer", [None, -1, 0x100, "x"])
def test_an_answer_of_a_device_that_is_no_byte(pvh, engine_name, answer):
    """mov dx, 0x600; in al, dx"""
    device = type("Odd", (), {"read": lambda *_access: answer, "write": print})()
    machine = pvh(engine=engine_name, firmware=rom_of(b"\xba\x00\x06\xec\xf4"), machine="microvm", devices={OWN_PORT: device})
    with pytest.raises(BootError, match=rf"Odd\.read\(0, 1\) gives {answer!r}: it is to be a number of 1 bytes"):
        machine.run_until_exit()


def test_a_device_of_the_test_at_an_address(pvh):
    device = Counter()
    where = range(OWN_PADDR, OWN_PADDR + 0x1000)
    machine = pvh(devices={where: device})
    machine.run_until_handoff()
    machine.memory[0x100000:0x100006] = b"\x8b\x05" + (OWN_PADDR + 8).to_bytes(4, "little")  # mov eax, [address]
    machine.step()
    assert machine.registers["eax"] == 1
    assert machine.io_log.of(where) == [Access("read", OWN_PADDR + 8, 4, 1, "Counter")]
