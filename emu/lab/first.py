"""The first wrong fact of a boot, in the order in which things happened."""

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi.pvh import HVM_START_INFO
from pvhboot.shim.blob import Blob
from pvhboot.shim.machines import Span, low_rom_span, rom_span

from ..board import Board
from ..check import VIOLATED
from ..diagnosis import diagnose
from ..engines.base import Cpu, Engine, Limits, Stop, Until, Watch
from ..engines.names import UNICORN
from ..reasons import HANDOFF, LIMIT
from ..recorded import record_boot
from ..sanitizer import CLOBBER, EXECUTION, NOWHERE, STACK, STORE, TRANSFER, UNWRITTEN, Sanitizer, Trespass
from ..session import Outcome, boot
from ..trace import Record
from .fact import Fact, done_by
from .facts_of_boot import BootFacts
from .facts_of_cpu import cpu_facts
from .facts_of_end import by_cause, end_facts
from .past import Past

_RECORDED: Final = 16_000  # instructions that are recorded at most; of pvhboot's firmwares the longest has 13,000
_OUTSIDE: Final = 64  # instructions outside of the ROM, behind which no more are recorded
_BY_HAND: Final = ".byte"  # an instruction that its source has so is data to the listing, and to the CPU none the less code
_SAID: Final = {
    STORE: "the firmware stores {}, which is not its memory",
    TRANSFER: "the firmware has a device write {}, which is not its memory",
    CLOBBER: "the firmware overwrites what is right: {}",
    STACK: "the firmware has its stack elsewhere: {}",
    UNWRITTEN: "the firmware reads {}",
    NOWHERE: "the firmware makes {}",
    EXECUTION: "the CPU leaves the firmware: {}",
}


class Verdict(NamedTuple):
    """What came of a boot: `fact` is the first thing that is wrong, None if nothing is."""

    outcome: Outcome
    fact: Fact | None


class _Leash:
    """A Watcher that ends a run soon after the CPU has left the ROM for somewhere else than the kernel's entry."""

    def start(self, cpu: Cpu, board: Board) -> Watch:
        """See Watcher."""
        self._cpu, self._entry, self._left = cpu, board.entry, _OUTSIDE
        low = low_rom_span(board.plan.spec, len(board.plan.rom))
        self._spans = [rom_span(len(board.plan.rom)), *([low] if low else [])]
        return Watch(self._on_instruction)

    def _on_instruction(self, address: int, _size: int) -> None:
        if address == self._entry or any(span.start <= address < span.end for span in self._spans):
            return
        self._left -= 1
        if not self._left:
            self._cpu.end(Stop(LIMIT, "the CPU has left the firmware", address))


def judge(plan: BootPlan, blob: Blob, engine: Engine, limits: Limits) -> Verdict:
    """Boots the plan to the handoff and, if not all is well, once more under a tracer. The files of the plan must be open;
    raises as `boot` does."""
    sanitizer = Sanitizer(plan, blob) if engine.name == UNICORN else None
    until = Until(HANDOFF)
    outcome = boot(plan, blob, engine, until, limits, watchers=[sanitizer] if sanitizer else [])
    by_hand = {line.address for line in blob.listing if line.text.startswith(_BY_HAND)}
    trespasses = [one for one in sanitizer.findings if one.kind != EXECUTION or one.paddr not in by_hand] if sanitizer else []
    if outcome.ok and not trespasses:
        return Verdict(outcome, None)
    past = Past(record_boot(plan, blob, engine, limits, kernel_instructions=0, most=_RECORDED, watchers=[_Leash()]))
    facts = [*_facts(past), *(_of_trespasses(past, trespasses) if sanitizer else _of_steps(past, by_hand))]
    if not facts:
        causes = diagnose(outcome, engine, until, limits, Board(plan)).causes
        facts = [by_cause(past, causes[0] if causes else None)]
    return Verdict(outcome, min(facts, key=lambda fact: fact.number))


def _facts(past: Past) -> Iterator[Fact]:
    outcome = past.recorded.outcome
    if outcome.handoff is None or outcome.tables is None:
        yield from end_facts(past)
        return
    violated = {finding.clause: finding.detail for finding in outcome.findings if finding.status == VIOLATED}
    yield from cpu_facts(past, outcome.handoff, violated)
    yield from BootFacts(past, outcome.handoff, outcome.tables, violated).facts()


def _of_trespasses(past: Past, trespasses: Sequence[Trespass]) -> Iterator[Fact]:
    """What the sanitizer has seen, but for what is the check's to judge: the tables that the kernel is handed."""
    handed: list[Span] = []
    outcome = past.recorded.outcome
    if outcome.handoff is not None and outcome.tables is not None:
        handed = outcome.tables.spans(outcome.handoff.registers["ebx"])
    for one in trespasses:
        if any(span.start < one.end and one.start < span.end for span in handed) and one.kind in (STORE, TRANSFER):
            continue
        if one.owner.startswith("start_info") and one.kind == UNWRITTEN and handed and one.paddr == handed[0].start:
            yield from _unwritten_fields(past, one)
            continue
        what = _SAID[one.kind].format(one.detail) if one.kind != UNWRITTEN or one.detail[:1].isdigit() else one.detail
        yield done_by(past, what, _trespasser(past, one))


def _of_steps(past: Past, by_hand: Collection[int]) -> Iterator[Fact]:
    """Where the CPU goes astray, on an engine that the sanitizer cannot watch."""
    outcome = past.recorded.outcome
    known = {line.address for line in outcome.blob.listing if line.is_code}.union(by_hand)
    rom, entry = rom_span(len(outcome.plan.rom)), outcome.plan.entry
    for before, record in pairwise(past.records):
        at = record.address
        if at not in known and at != entry:
            what = "where no instruction begins" if rom.start <= at < rom.end else f"and the kernel is entered at {entry:#x}"
            yield done_by(past, f"the CPU leaves the firmware: it goes on at {at:#x}, {what}", before)
            return


def _unwritten_fields(past: Past, one: Trespass) -> Iterator[Fact]:
    """The fields of start_info that the kernel is handed without anybody having stored to them."""
    for name, field in HVM_START_INFO.fields.items():
        at = one.paddr + field.offset
        if any(past.last_write(at + byte, 1) is None for byte in range(field.size)):
            yield done_by(past, f"{name} of start_info, {field.size} bytes at {at:#x}: not all are stored by anybody", None)


def _trespasser(past: Past, one: Trespass) -> Record | None:
    """The instruction, that time when it did it first."""
    there = [record for record in past.records if record.address == one.ip]
    touches = (
        record
        for record in there
        if any(
            effect.at < one.paddr + one.size and one.paddr < effect.at + effect.size * effect.times for effect in record.effects
        )
    )
    return next(touches, there[-1] if there else None)
