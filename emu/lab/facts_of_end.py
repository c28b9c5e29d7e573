"""Facts on a boot that has not come to the kernel: on what fw_cfg has said, and on how it ended."""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pvhboot.loader.fw_cfg import fw_cfg_items
from pvhboot.shim.abi import fw_cfg
from pvhboot.shim.abi.firmware import FW_CFG, PANIC_PREFIX, PANICS
from pvhboot.shim.machines import Span

from ..causes.host import SMALL
from ..causes.scene import Scene, scene_of_outcome
from ..engines.base import describe_stop
from ..instruction import MEMORY, read_instruction, register_value
from ..reasons import HALT, LIMIT
from ..recent import History, swapped
from ..trace import Record
from .fact import Fact, done_by
from .facts_of_way import WAY
from .past import Past, file_of, name_of, source_of

if TYPE_CHECKING:
    from ..causes.scene import Cause

_PANICS: Final = "_panics.s"
_STOPPED: Final = "the firmware has stopped itself"
_CONDITION: Final = 4  # instructions in front of a conditional jump that make its condition
_FILES: Final = range(fw_cfg.FW_CFG_FILE_FIRST, fw_cfg.FW_CFG_ENTRY_MASK + 1)


def end_facts(past: Past) -> Iterator[Fact]:
    """What is known without the likely causes; nothing if that is nothing."""
    scene = scene_of_outcome(past.recorded.outcome, History())
    for rule in (*WAY, _number):
        if (fact := rule(past, scene)) is not None:
            yield fact


def by_cause(past: Past, cause: "Cause | None") -> Fact:
    """What the likeliest cause says, and where; of none, how the run has ended. Where the firmware has stopped itself, and no
    cause says why, its panic."""
    outcome = past.recorded.outcome
    panic = _panic(past, scene_of_outcome(outcome, History()))
    if panic is not None and (cause is None or cause.title.startswith(_STOPPED)):
        return panic
    what = describe_stop(outcome.run.stop) if cause is None else cause.title
    if cause is None and outcome.run.stop.reason == LIMIT:
        what = f"the kernel is not reached: after {len(past.records)} instructions the firmware is still on its way"
    if cause is not None and cause.evidence:
        what += f": {cause.evidence[0]}"
    fact, place = Fact(what, "", past.end), outcome.stop_place
    return fact if fact.places or place is None else fact._replace(where=f"the end is at {place}")


def _number(past: Past, scene: Scene) -> Fact | None:
    """A number of fw_cfg's directory in the wrong byte order, by which a conditional jump has led to a panic."""
    directory = scene.plan.spec.low.transfer
    if scene.stop.reason != HALT or scene.plan.source != FW_CFG or directory is None or (jump := _last_branch(past)) is None:
        return None
    sizes = {key: source.size for key, source in fw_cfg_items(scene.plan, scene.recording).items() if key in _FILES}
    names = {swapped(size): (size, "the size of a file") for size in sizes.values() if 1 < size < SMALL}
    names[swapped(len(sizes))] = (len(sizes), "the number of files")
    first = max(0, jump.number - 1 - _CONDITION)
    mended: set[int | None] = set()
    for step in past.records[first : jump.number - 1]:
        state = past.state_before(step.number)
        one = read_instruction(step.code, step.address, step.bits, state)
        for operand in one.operands:
            held = register_value(state, operand.name) if operand.name else None
            if one.mnemonic == "bswap":
                mended.add(held)
            if held not in names or held in mended or held is None or operand.written:
                continue
            value, name = names[held]
            loader = next((r for r in reversed(past.records[: step.number - 1]) if held in r.changes.values()), step)
            if not _loads(past, loader, directory):
                continue
            return done_by(past, f"{operand.name} is {held:#x}, not {value:#x}: {name}, big-endian, as fw_cfg tells it", loader)
    return None


def _loads(past: Past, record: Record, span: Span) -> bool:
    """Whether an instruction reads memory in a span."""
    one = read_instruction(record.code, record.address, record.bits, past.state_before(record.number))
    return any(operand.kind == MEMORY and operand.value in range(span.start, span.end) for operand in one.operands)


def _last_branch(past: Past) -> Record | None:
    """The last conditional jump."""
    return past.last(lambda record: name_of(record).startswith("j") and name_of(record) != "jmp")


def _panic(past: Past, scene: Scene) -> Fact | None:
    """pvhboot's firmware has stopped itself."""
    if scene.stop.reason != HALT or PANIC_PREFIX.encode() not in scene.debug_console or not scene.post_codes:
        return None
    panic = next((panic for panic in PANICS if panic.code == scene.post_codes[-1]), None)
    if panic is None:
        return None
    fact = Fact(f"the firmware stops itself with {panic.name}: {panic.text}", "", past.end)
    jump = _jump_to_panic(past)
    return fact if jump is None else fact._replace(where=f"{name_of(jump)} at {source_of(jump)} leads there")


def _jump_to_panic(past: Past) -> Record | None:
    """From the phase to where those panics are that it can end in."""
    for before, after in pairwise(reversed(past.records)):
        if file_of(before).endswith(_PANICS) and not file_of(after).endswith(_PANICS):
            return after
    return None
