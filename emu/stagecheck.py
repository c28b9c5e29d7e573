"""Proves a custom stage against its contract: it runs in Unicorn, comes back, and changes nothing but what it declares."""

from collections.abc import Mapping, Sequence
from typing import Final

from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import x86
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError
from pvhboot.shim.image import STAGE_LABELS
from pvhboot.shim.machine_records import told_apart
from pvhboot.shim.machines import MIB, MachineSpec
from pvhboot.shim.stage import REGISTERS, Stage
from pvhboot.shim.stock import GUEST_BITS, default_guest

from .board import Board
from .engines.base import Limits, Watch, describe_stop
from .engines.unicorn_cpu import UnicornCpu

_MEMORY: Final = 64 * MIB
_LIMITS: Final = Limits(instructions=20_000_000, seconds=60.0)
_KEPT: Final = ("cr0", "cr3", "cr4", "efer", "gdtr_base", "gdtr_limit")
# What the registers that the stage gets no value in hold before it: so that it cannot leave one alone by luck.
_MARKS: Final = {name: 0x5EED0000 + number for number, name in enumerate(("eax", "ebx", "ecx", "edx", "esi", "edi"))}
_RETURN_ADDRESS: Final = 4  # bytes, of the firmware's call
_SHOWN: Final = 4


def check_stage(spec: MachineSpec, blob: Blob, stage: Stage) -> None:
    """BootError, naming the stage's file, if it does not keep its contract on each machine that the firmware is for."""
    for machine in told_apart(spec):
        _check_on(machine, blob, stage, spec)


def _check_on(place: MachineSpec, blob: Blob, stage: Stage, spec: MachineSpec) -> None:
    kernel = Kernel.from_bytes(default_guest(GUEST_BITS[0]), "conformance guest")
    plan = make_plan(place, blob.data, kernel, memory=_MEMORY, cmdline="stage check")
    board = Board(plan, plan.memory())
    cpu = UnicornCpu(board, _LIMITS)
    if not cpu.run_to({blob.symbols[STAGE_LABELS[stage.slot]]}):
        raise BootError(f"{stage.name}: the firmware does not reach the stage: {_ending(cpu, blob, board)}")
    for name, value in _MARKS.items():
        cpu.set_register(name, value)
    cpu.set_register("eflags", cpu.registers()["eflags"] | x86.EFLAGS_ARITHMETIC)
    before, hidden = cpu.registers(), cpu.hidden_state()
    back = int.from_bytes(board.memory.read(before["esp"], _RETURN_ADDRESS), "little")
    writes: list[tuple[int, int]] = []
    with cpu.watch(Watch(store=lambda paddr, size, _value: writes.append((paddr, size)))):
        if not cpu.run_to({back}):
            raise BootError(f"{stage.name}: the stage does not come back: {_ending(cpu, blob, board)}")
    after = cpu.registers()
    problems = _register_problems(stage, before, after)
    problems += [f"{name} has changed" for name, value in cpu.hidden_state().items() if value != hidden[name]]
    problems += _write_problems(stage, spec, before["esp"], writes)
    if board.rom_writes:
        problems.append(f"it stores to the ROM at {board.rom_writes[0].address:#x}")
    if problems:
        raise BootError(f"{stage.name}: the stage breaks its contract: {'; '.join(problems)}")


def _ending(cpu: UnicornCpu, blob: Blob, board: Board) -> str:
    assert cpu.stop is not None
    place = None if cpu.stop.rip is None else blob.locate(cpu.stop.rip)
    said = board.debug_console.decode(errors="replace").strip()
    return describe_stop(cpu.stop) + (f" at {place}" if place else "") + (f" ({said})" if said else "")


def _register_problems(stage: Stage, before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    problems = []
    expected = before["esp"] + _RETURN_ADDRESS
    if after["esp"] != expected:
        problems.append(f"esp comes back as {after['esp']:#x}, not {expected:#x}")
    for name in (*(name for name in REGISTERS if name not in stage.clobbers.registers), *_KEPT):
        if after[name] != before[name]:
            problems.append(f"{name} was {before[name]:#x} and is {after[name]:#x}")
    free = x86.EFLAGS_ARITHMETIC if stage.clobbers.flags else 0
    changed = (before["eflags"] ^ after["eflags"]) & ~free
    if changed:
        problems.append(f"eflags was {before['eflags']:#x} and is {after['eflags']:#x}")
    return problems


def _write_problems(stage: Stage, spec: MachineSpec, esp: int, writes: Sequence[tuple[int, int]]) -> list[str]:
    """Stores outside of the spans that it declares and of the free part of the firmware's stack."""
    allowed = [*stage.clobbers.memory, (spec.low.stack.start, esp)]
    wrong = [
        (address, size)
        for address, size in writes
        if not any(start <= address and address + size <= end for start, end in allowed)
    ]
    return [f"it stores {size} bytes at {address:#x}" for address, size in wrong[:_SHOWN]]
