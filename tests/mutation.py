"""How many mutants of pvhboot's own firmwares the tests would notice: `python tests/mutation.py microvm`.

Each mutant (emu/vary/mutants.py) goes through the scenarios that execute its instruction, the shortest first, until one does
not come out as with the firmware as it is. What is compared is what the tests of those scenarios look at: how the run ended and
what was said, every access to a device, the clauses of the check, registers and segments at the kernel's entry, and memory, but
for what the firmware keeps to itself.
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pvhboot.emu.board import Board
from pvhboot.emu.comparison import COMPARED
from pvhboot.emu.engines.base import Limits
from pvhboot.emu.vary.mutants import Instruction, Mutation, mutations
from pvhboot.emu.vary.survey import Survey
from pvhboot.emu.vary.trial import run
from pvhboot.loader.memory import GuestMemory
from pvhboot.shim.abi.x86 import PAGE_SIZE
from pvhboot.shim.blob import Blob
from pvhboot.shim.defs import Options, firmware_symbols
from pvhboot.shim.errors import NoMemoryError
from pvhboot.shim.machines import MACHINES, ROM_GRANULE, MachineSpec, low_rom_span, rom_span
from pvhboot.shim.stock import default_blob
from scenarios import Scenario, scenarios

_BATCH = 8  # mutants
# A scenario that long (a host that never answers) is only for what so many others do not execute.
_LONG, _ENOUGH = 200_000, 20


class Reference(NamedTuple):
    """A scenario with the firmware as it is: what came of it, what it executes, and how many instructions that were."""

    scenario: Scenario
    seen: dict[str, Any]
    executed: frozenset[int]
    instructions: int


class Suite:
    """All scenarios of a firmware."""

    def __init__(self, machine: str, folder: Path) -> None:
        self.spec = MACHINES[machine]
        self.instructions: dict[int, Instruction] = {}
        self.references: list[Reference] = []
        own = Path(tempfile.mkdtemp(dir=folder))  # not shared with another process, which may be writing
        for scenario in scenarios(machine, own):
            survey = Survey()
            board = scenario.board(_as_it_is)
            seen, count = _seen(scenario, self.spec, board, Limits(seconds=60.0), survey)
            self.instructions |= survey.instructions
            self.references.append(Reference(scenario, seen, frozenset(survey.first), count))
        self.references.sort(key=lambda reference: reference.instructions)

    def notice(self, mutation: Mutation) -> str | None:
        """The scenario in which it is noticed, and by what; None: in none."""
        covering = [reference for reference in self.references if mutation.address in reference.executed]
        for number, reference in enumerate(covering):
            if number < _ENOUGH or reference.instructions < _LONG:
                limits = Limits(instructions=4 * reference.instructions + 5000, seconds=60.0)
                seen, _ = _seen(reference.scenario, self.spec, reference.scenario.board(mutation.apply), limits)
                for what, value in reference.seen.items():
                    if seen.get(what) != value:
                        return f"{reference.scenario.name}: {what}"
        return None


def _as_it_is(rom: bytes) -> bytes:
    return rom


def _seen(
    scenario: Scenario, spec: MachineSpec, board: Board, limits: Limits, survey: Survey | None = None
) -> tuple[dict[str, Any], int]:
    """What is compared, the cheapest first; and the instructions."""
    trial = run(board, limits, [survey] if survey else [])
    outcome = trial.outcome
    seen: dict[str, Any] = {
        "end": outcome.run.stop.reason,
        "said": (outcome.debug_console, outcome.post_codes, outcome.console),
        "accesses": outcome.accesses,
    }
    if outcome.handoff is not None:
        registers = outcome.handoff.registers
        if scenario.linux:
            seen["registers"] = tuple(registers[name] for name in ("esi", "ebx", "ebp", "edi", "esp", "cr0", "cr4"))
            seen["segments"] = COMPARED["segment"](outcome)
            seen["span"] = trial.memory.read(firmware_symbols(spec, Options())["KERNEL_ADDR_PADDR"], 8)
        else:
            seen |= {what: look(outcome) for what, look in COMPARED.items()}
            seen["check"] = outcome.findings
            seen["task register"] = outcome.handoff.segments["tr"]
        seen["memory"] = dict(_memory(spec, trial.memory, trial.pages))
    return seen, outcome.run.counts["instructions"]


def _memory(spec: MachineSpec, memory: GuestMemory, pages: frozenset[int]) -> Iterator[tuple[int, int]]:
    """What was written, by page, without what the firmware keeps to itself, and without the ROM, which holds the mutant."""
    low = spec.low
    rom = [span for span in (rom_span(ROM_GRANULE), low_rom_span(spec, ROM_GRANULE)) if span is not None]
    own = [span for span in (low.stack, low.control, low.transfer, low.e820, low.script, low.allocated) if span is not None]
    for page in sorted(pages):
        start = page * PAGE_SIZE
        if any(span.start <= start < span.end for span in rom):
            continue
        try:
            data = bytearray(memory.read(start, PAGE_SIZE))
        except NoMemoryError:
            continue
        for span in own:
            first, last = max(start, span.start), min(start + PAGE_SIZE, span.end)
            if first < last:
                data[first - start : last - start] = bytes(last - first)
        if data.strip(b"\0"):
            yield page, hash(bytes(data))


class Name(NamedTuple):
    """A mutant as tests/survivors.py names it: the label before the instruction, its source, and the change: its operator, and
    its number among what that makes of the instruction."""

    label: str
    text: str
    change: str


class Score(NamedTuple):
    """What came of all mutants of a firmware: by what each was noticed, None if by nothing."""

    blob: Blob
    noticed: dict[Mutation, str | None]
    names: dict[Mutation, Name]
    executed: int  # instructions that some scenario executes
    unexecuted: tuple[str, ...]  # source lines of the others

    @property
    def survivors(self) -> list[Mutation]:
        """Those that nothing notices."""
        return [mutation for mutation, by in self.noticed.items() if by is None]


def score(
    machine: str, *, sample: int | None = None, seed: int = 0, jobs: int = 2, only: Callable[[Name], bool] = lambda _: True
) -> Score:
    """Of all mutants that are wanted, or of so many of them that chance (the same for a seed) chooses."""
    blob = default_blob(MACHINES[machine])
    with tempfile.TemporaryDirectory() as folder:
        suite = Suite(machine, Path(folder))
        mutants = mutations(suite.instructions.values())
        names = _names(blob, mutants)
        mutants = [mutation for mutation in mutants if only(names[mutation])]
        if sample is not None and sample < len(mutants):
            mutants = sorted(random.Random(seed).sample(mutants, sample), key=lambda mutation: mutation.address)
        noticed = dict.fromkeys(mutants, "")
        batches = [mutants[at : at + _BATCH] for at in range(0, len(mutants), _BATCH)]
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as executor:
            futures = {executor.submit(_notice, machine, folder, batch): batch for batch in batches}
            for future in as_completed(futures):
                noticed |= zip(futures[future], future.result(), strict=True)
    lines = {line.address: line for line in blob.listing if line.is_code}
    executed = lines.keys() & suite.instructions.keys()
    missing = tuple(f"{lines[at].file}:{lines[at].line} {lines[at].text.strip()}" for at in sorted(lines.keys() - executed))
    return Score(blob, noticed, names, len(executed), missing)


def _names(blob: Blob, mutants: Sequence[Mutation]) -> dict[Mutation, Name]:
    lines = {line.address: line.text.strip() for line in blob.listing if line.data}
    numbers: Counter[tuple[int, str]] = Counter()
    names = {}
    for mutation in mutants:
        key = mutation.address, mutation.operator
        place = blob.locate(mutation.address)
        names[mutation] = Name(
            place.symbol if place else "", lines.get(mutation.address, ""), f"{mutation.operator} {numbers[key]}"
        )
        numbers[key] += 1
    return names


def _notice(machine: str, folder: str, batch: Sequence[Mutation]) -> list[str | None]:
    suite = _suite(machine, folder)
    return [suite.notice(mutation) for mutation in batch]


@lru_cache(maxsize=1)
def _suite(machine: str, folder: str) -> Suite:
    return Suite(machine, Path(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("machine", nargs="+", choices=MACHINES)
    parser.add_argument("--sample", type=int, help="so many mutants of each, chosen by chance")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--survivors", action="store_true", help="list them")
    arguments = parser.parse_args()
    for machine in arguments.machine:
        found = score(machine, sample=arguments.sample, jobs=arguments.jobs)
        alive = found.survivors
        total = len(found.noticed)
        print(f"{machine:<13} {total} mutants of {found.executed} instructions, {total - len(alive)} noticed", end="")
        print(
            f" ({100 * (total - len(alive)) / total:.1f} %); {len(found.unexecuted)} instructions are not executed", flush=True
        )
        if arguments.survivors:
            for mutation in alive:
                label, text, change = found.names[mutation]
                print(f"  {label:<22} {text:<60} {change:<15} {mutation.now}")
            for missing in found.unexecuted:
                print(f"  not executed: {missing}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
