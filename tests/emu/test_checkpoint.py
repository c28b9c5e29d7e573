"""Checkpoints: back to where it was, to the byte; and what they keep of Python objects."""

import struct
from collections import deque
from dataclasses import dataclass

import pytest
from pvhboot.emu.board import Board
from pvhboot.emu.checkpoint import checkpoint
from pvhboot.emu.engines.base import Limits
from pvhboot.emu.engines.unicorn_cpu import UnicornCpu
from pvhboot.emu.memento import Memento
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import paging, x86
from pvhboot.shim.machines import BARE, MIB, MICROVM, PC, Q35
from pvhboot.shim.stock import default_blob, default_guest


def machine(spec):
    plan = make_plan(
        spec, default_blob(spec).data, Kernel.from_bytes(default_guest(64), "guest"), memory=32 * MIB, cmdline="words"
    )
    board = Board(plan)
    return UnicornCpu(board, Limits()), board


def everything(cpu, board):
    """All that there is to see of a machine."""
    memory = board.memory
    return {
        "memory": [memory.read(region.span.start, region.span.size) for region in memory.regions],
        "regions": memory.regions,
        "cpu": (cpu.registers(), cpu.segments(), cpu.hidden_state(), cpu.linear_ip(), cpu.instructions, cpu.stop, cpu.counts()),
        "log": list(board.bus.log),
        "said": (bytes(board.console), bytes(board.debug_console), list(board.post_codes), board.stop, board.rom_writes),
    }


@pytest.mark.parametrize("spec", [BARE, MICROVM, PC, Q35], ids=lambda spec: spec.name)
def test_all_is_as_it_was(spec):
    cpu, board = machine(spec)
    for place in (board.entry, None):
        before = everything(cpu, board)
        seen = []
        for _ in range(2):
            with checkpoint(cpu, board):
                cpu.run_to({board.entry} if place else ())
                seen.append(everything(cpu, board))
            assert everything(cpu, board) == before
        assert seen[0] == seen[1] != before
        if place:
            assert cpu.run_to({place})
            assert everything(cpu, board) == seen[0]


def test_one_within_another():
    cpu, board = machine(MICROVM)
    reset = everything(cpu, board)
    with checkpoint(cpu, board):
        assert cpu.run_to({board.entry})
        entry = everything(cpu, board)
        for _ in range(2):
            with checkpoint(cpu, board):
                assert not cpu.run_to(())
            assert everything(cpu, board) == entry
    assert everything(cpu, board) == reset


def test_what_a_test_writes_itself_goes_back_and_so_does_the_code():
    cpu, board = machine(BARE)
    assert cpu.run_to({board.entry})
    with checkpoint(cpu, board):
        with board.memory.writing(board.entry, 1) as code:
            code[:] = b"\xf4"
        cpu.set_register("ebx", 5)
        assert not cpu.run_to(())
        assert cpu.stop.reason == "halt"
    assert cpu.registers()["ebx"] != 5
    assert not cpu.run_to(())
    assert cpu.stop.reason == "exit"


class Pausing:
    """A device that has a CPU pause."""

    def write(self, offset, size, value):  # noqa: ARG002 - a Device has it
        self.cpu.pause()


def test_a_cpu_that_a_device_holds_is_none_of_the_devices():
    """A write to port 0x600 at the kernel's entry; the CPU's hooks are other ones afterwards."""
    cpu, board = machine(BARE)
    pausing = Pausing()
    board.bus.claim_ports(0x600, 1, "pausing", pausing)
    pausing.cpu = cpu
    assert cpu.run_to({board.entry})
    code = b"\x66\xba\x00\x06\xee\xeb\x00\x90\xf4"  # mov dx, 0x600; out dx, al; jmp to what follows; nop; hlt
    with board.memory.writing(board.entry, len(code)) as view:
        view[:] = code
    for _ in range(2):
        with checkpoint(cpu, board):
            assert not cpu.run_to((), counting=False)
            assert cpu.stop is None
            assert cpu.run_to({board.entry + 8}, counting=False)
            hooks = cpu._code_hooks
        assert cpu._code_hooks is hooks
        assert cpu.linear_ip() == board.entry


def test_back_from_paging():
    """Linear addresses that meant other memory within the block."""
    cpu, board = machine(BARE)
    assert cpu.run_to({board.entry})
    memory, tables = board.memory, 0x1000000
    with memory.writing(tables, 0x1000) as directory:  # 4 MiB pages: 0x400000 is where 0xc00000 is, the rest as it is
        for number in range(1024):
            page = 3 if number == 1 else number
            struct.pack_into("<I", directory, number * 4, page << 22 | paging.PTE_LARGE | 3)
    code = (
        b"\x0f\x20\xe0\x83\xc8\x10\x0f\x22\xe0"  # cr4 |= PSE
        + b"\xb8" + struct.pack("<I", tables) + b"\x0f\x22\xd8"  # cr3
        + b"\x0f\x20\xc0\x0d\x00\x00\x00\x80\x0f\x22\xc0"  # cr0 |= PG
        + b"\xa1\x00\x00\x40\x00\xf4"  # mov eax, [0x400000]; hlt
    )  # fmt: skip
    plain = b"\xa1\x00\x00\x40\x00\xf4"
    for at, value in ((0x400000, 0x11111111), (0xC00000, 0x33333333)):
        with memory.writing(at, 4) as word:
            word[:] = value.to_bytes(4, "little")
    for _ in range(2):
        for what, value in ((code, 0x33333333), (plain, 0x11111111)):
            with checkpoint(cpu, board):
                with memory.writing(board.entry, len(what)) as view:
                    view[:] = what
                assert not cpu.run_to(())
                assert cpu.stop.reason == "halt"
                assert cpu.registers()["eax"] == value
                assert bool(cpu.registers()["cr0"] & x86.CR0_PG) is (what is code)


class Slotted:
    __slots__ = ("__hidden", "seen")

    def __init__(self):
        self.seen, self.__hidden = [], 0

    def see(self, value):
        self.seen.append(value)
        self.__hidden += 1
        return self.__hidden


@dataclass(frozen=True, slots=True)
class Frozen:
    held: list[int]


class Shared:
    def __init__(self, buffer):
        self.buffer, self.slotted, self.callback = buffer, Slotted(), None


def test_a_memento_keeps_who_is_who():
    buffer, fixed = bytearray(b"one"), []
    first, second = Shared(buffer), Shared(buffer)
    counted = {"a": [1], "set": {1}, "tuple": ([1], (first,)), "deque": deque([1, 2])}

    def closure():
        counted["a"].append(2)

    second.callback = closure
    second.fixed = fixed
    first.friend = second
    memento = Memento([first], [fixed])
    for _ in range(2):
        buffer += b" two"
        closure()
        counted["set"].add(2)
        counted["tuple"][0].clear()
        counted["deque"].popleft()
        assert second.slotted.see("x") == 1
        first.friend, first.more = None, 1
        fixed.append(1)
        memento.restore()
        assert (buffer, counted["a"], counted["set"], counted["tuple"][0]) == (b"one", [1], {1}, [1])
        assert counted["deque"] == deque([1, 2])
        assert first.friend is second
        assert first.buffer is second.buffer is buffer
        assert not hasattr(first, "more")
        assert second.slotted.seen == []
    assert fixed == [1, 1]


def test_a_memento_of_what_cannot_be_assigned_to():
    frozen = Frozen([1])

    def callback():
        return later

    memento = Memento([frozen, callback])
    frozen.held.append(2)
    later = 1
    memento.restore()
    assert frozen.held == [1]
    assert callback() == 1


def test_a_memento_survives_what_looks_into_itself():
    loop: list[object] = []
    loop.append(loop)
    memento = Memento([loop])
    loop.clear()
    memento.restore()
    assert loop[0] is loop
