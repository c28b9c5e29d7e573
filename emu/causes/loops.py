"""Rules on a CPU that gets no farther, firmware and guest alike: round in circles, or waiting for an interrupt."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from pvhboot.shim.abi.devices import COM1_PORT
from pvhboot.shim.abi.firmware import DEBUGCON_PORT
from pvhboot.shim.abi.x86 import EFLAGS_IF, HLT

from ..bus import IN
from ..com1 import last_line
from ..instruction import IMMEDIATE, read_instruction
from ..reasons import HALT, LIMIT
from ..recent import Executed
from .scene import Cause, Scene

_LOOP_MAX: Final = 24  # instructions
_SHOWN: Final = 3
_HLT: Final = "hlt"
_IRET: Final = "iretd"  # a handler's end: an interrupt has come
_READS: Final = ("in ", "insb", "insd", "insw")
_WRITES: Final = ("out ", "outsb", "outsd", "outsw")
_PRINTERS: Final = {COM1_PORT: "COM1", DEBUGCON_PORT: "the debug console"}


def endless_loop(scene: Scene) -> Cause | None:
    """A few instructions, over and over, until the limit."""
    tail = _repeating(scene.history.executed)
    loop = {one.address: one for one in tail}
    if scene.stop.reason != LIMIT or len(loop) > _LOOP_MAX:
        return None
    if not loop:
        return _jump_to_itself(scene)
    texts = {one.text for one in loop.values()}
    if _HLT in texts and _IRET not in texts:
        return _no_interrupt(scene, [scene.shown(one) for one in loop.values()][:_SHOWN])
    count = sum(one.times for one in tail)
    counted = (
        f"The last {count} instructions were {len(loop)} different ones"
        if len(loop) > 1
        else f"The last instruction was executed {count} times in a row"
    )
    return _printing(scene, tail, counted) or _waiting(scene, tail, counted) or _plain_loop(scene, loop, counted)


def _jump_to_itself(scene: Scene) -> Cause | None:
    """What can be told where nothing was watched."""
    one = scene.instruction
    if one is None or one.mnemonic != "jmp" or one.operands[0].kind != IMMEDIATE or one.operands[0].value != one.address:
        return None
    return _loop("The jump there goes to itself", [f"{scene.at(one.address)}: {one.text}"], can_end=False)


def _repeating(executed: Sequence[Executed]) -> Sequence[Executed]:
    """What is executed again and again at the end, without what led there; nothing if there is no such thing."""
    rounds = Counter(one.address for one in executed)
    if executed and rounds[executed[-1].address] == 1 and executed[-1].times > 1:  # it jumps to itself
        return executed[-1:]
    start = next((at for at, one in enumerate(executed) if rounds[one.address] > 1), len(executed))
    tail = executed[start:]
    return tail if 2 * len({one.address for one in tail}) <= len(tail) else ()


def _printing(scene: Scene, tail: Sequence[Executed], counted: str) -> Cause | None:
    for one in reversed(tail):
        if not one.text.removeprefix("rep ").startswith(_WRITES):
            continue
        operand = read_instruction(one.data, one.address, one.bits, one.registers or scene.registers).operands[0]
        port = None if operand.value is None else operand.value & 0xFFFF
        if port in _PRINTERS:
            name = _PRINTERS[port]
            said = last_line(scene.console if port == COM1_PORT else scene.debug_console)
            return Cause(
                f"a loop prints to {name}, port {port:#x}, without end",
                f"{counted}, and write to that port.",
                (scene.shown(one), f"the end of what {name} has printed: {said}"),
                "bound the loop: look at what should tell it where its text ends",
            )
    return None


def _waiting(scene: Scene, tail: Sequence[Executed], counted: str) -> Cause | None:
    reads = [one for one in tail if one.text.removeprefix("rep ").startswith(_READS)]
    last = next((access for access in reversed(scene.accesses) if access.kind == IN), None)
    if not reads or last is None:
        return None
    answers = f"port {last.address:#x} ({last.device or 'nobody'}) answers {last.value:#x}"
    return Cause(
        f"a loop waits for port {last.address:#x}",
        f"{counted}, and read a port: {answers}.",
        (scene.shown(reads[0]), answers),
        "bound the wait, or look at what the device must be told before it answers so",
    )


def _plain_loop(scene: Scene, loop: dict[int, Executed], counted: str) -> Cause:
    ends = [one for one in loop.values() if one.is_branch]
    evidence = [scene.shown(loop[address]) for address in sorted(loop)[:_SHOWN]]
    if ends:
        evidence.append(f"it ends by: {scene.shown(ends[0])}")
    return _loop(counted, evidence, can_end=bool(ends))


def _loop(seen: str, evidence: Sequence[str], *, can_end: bool) -> Cause:
    return Cause(
        "an endless loop",
        f"{seen}." + ("" if can_end else " Nothing in it can end the loop."),
        tuple(evidence),
        "look at what should change the condition, or give a higher limit if the loop is meant to be so long"
        if can_end
        else "look at how the CPU came there: such loops stand where code gives up, or has nothing left to do",
    )


def halted(scene: Scene) -> Cause | None:
    """hlt, and nothing has ended it."""
    rip = scene.stop.rip
    if rip is None or scene.stop.reason not in (HALT, LIMIT):
        return None
    hlt = rip - len(HLT)
    ended = scene.stop.reason == HALT  # where the engine knows that nothing will
    if not scene.in_firmware and scene.registers and scene.registers["eflags"] & EFLAGS_IF:
        if ended:
            return _no_interrupt(scene, [scene.shown_at(hlt)])
        return _waits_for_interrupt(scene, hlt) if hlt >= 0 and scene.read_linear(hlt, len(HLT)) == HLT else None
    return _gave_up(scene, rip) if ended else None


def _no_interrupt(scene: Scene, evidence: list[str]) -> Cause:
    return Cause(
        "the CPU is halted, and no interrupt comes",
        "It waits in hlt with interrupts on, and nothing that it has set up raises one.",
        (*evidence, *last_words(scene)),
        "program a timer, and unmask it, before the hlt; if there is nothing left to do, end by the debug-exit port or a reset",
    )


def _waits_for_interrupt(scene: Scene, hlt: int) -> Cause:
    return Cause(
        "the CPU is halted, and waits for an interrupt",
        "It stood in hlt with interrupts on when the limit was reached. None comes without a timer or device that is set up.",
        (scene.shown_at(hlt), *last_words(scene)),
        "look at which interrupt should come, and whether its device and its controller are programmed and unmasked",
    )


def _gave_up(scene: Scene, rip: int) -> Cause:
    evidence = [scene.shown_at(rip - len(HLT)), *last_words(scene)]
    branch = scene.history.last_branch
    if branch is not None and scene.in_firmware:
        evidence.append(f"the last conditional jump: {scene.shown(scene.history.executed[branch])}")
    title, why = "the guest has halted itself", "with interrupts off: guests do so at their end, or"
    if scene.in_firmware:
        title, why = "the firmware has halted itself", "before the kernel's entry: most firmwares do so"
    return Cause(
        title,
        f"It has executed hlt {why} when they find that they cannot go on.",
        tuple(evidence),
        "look at what it checks in front of that place",
    )


def last_words(scene: Scene) -> list[str]:
    """What it said last on the consoles, and by POST code, for evidence."""
    said = last_line(scene.debug_console)
    words = [f"its last words on the debug console: {said}"] if said else []
    if not scene.in_firmware and (line := last_line(scene.console)):
        words.append(f"its last line on COM1: {line}")
    return words + ([f"its last POST code: {scene.post_codes[-1]:#04x}"] if scene.post_codes else [])
