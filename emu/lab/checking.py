"""The check of what is in a directory: built, booted, judged."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.loader.sizes import parse_memory

from ..check import OK
from ..engines.base import Limits, describe_stop
from ..engines.names import KVM, UNICORN
from ..inputs import open_kernel
from ..session import Outcome, get_engine
from ..source_lines import SourceLine
from .directory import Directory
from .exercises import number_of
from .fact import Fact
from .first import judge

# A firmware that gets no farther is ended soon: pvhboot's own take 13,000 instructions at most, and less than a second.
_LIMITS: Final = {UNICORN: Limits(instructions=50_000, seconds=20.0), KVM: Limits(seconds=5.0)}


class Result(NamedTuple):
    """What came of a check: `fact` is the first thing that is wrong (None: passed), `lines` the source lines that it names."""

    directory: Directory
    outcome: Outcome
    fact: Fact | None
    lines: tuple[SourceLine, ...]

    @property
    def clauses_met(self) -> int:
        """How many clauses of the ABI are."""
        return sum(finding.status == OK for finding in self.outcome.findings)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        exercise = self.directory.exercise
        return {
            "exercise": {"number": number_of(exercise), "name": exercise.name},
            "machine": exercise.machine.name,
            "engine": self.outcome.engine,
            "passed": self.fact is None,
            "fact": None if self.fact is None else self.fact.to_json(),
            "lines": [line._asdict() for line in self.lines],
            "end": describe_stop(self.outcome.run.stop),
            "clauses_met": self.clauses_met,
            "learnt": exercise.lesson.learnt if self.fact is None else None,
        }


def check(directory: Directory, engine_name: str) -> Result:
    """Builds and boots. BootError if it does not assemble, or for what the engine lacks."""
    exercise = directory.exercise
    blob, engine = directory.build(), get_engine(engine_name)
    memory = parse_memory(exercise.memory)
    with open_kernel(None) as kernel:
        modules = [] if directory.initrd is None else [Module(directory.initrd)]
        reserved = engine.host_reserved(exercise.machine, memory)
        plan = make_plan(exercise.machine, blob.data, kernel, memory=memory, modules=modules, host_reserved=reserved)
        verdict = judge(plan, blob, engine, _LIMITS[engine_name])
    lines = () if verdict.fact is None else tuple(_lines(directory, verdict.fact))
    return Result(directory, verdict.outcome, verdict.fact, lines)


def _lines(directory: Directory, fact: Fact) -> Iterator[SourceLine]:
    """What the student's own files have there."""
    sources = directory.sources()
    for file, number in fact.places:
        text = sources.get(file, "").splitlines()[number - 1 : number]  # a generated file is not there
        if text:
            yield SourceLine(file, number, text[0].rstrip())
