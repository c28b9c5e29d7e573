"""Rules, and the verdict that the first one gives which has something to say."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pvhboot.shim.errors import BootError

ACCEPTS: Final = "accepts"
REFUSES: Final = "refuses"
CRASHES: Final = "crashes"  # or hangs: it ends without a word, or not at all
UNKNOWN: Final = "unknown"  # what it does depends on more than the file

MASK32: Final = (1 << 32) - 1  # what a loader's arithmetic keeps
MASK64: Final = (1 << 64) - 1
OFFSET_MAX: Final = (1 << 63) - 1  # an offset in a file is a signed number of 64 bits

# The roads into a kernel.
PVH: Final = "PVH"
MULTIBOOT: Final = "Multiboot"
LINUX_BOOT: Final = "Linux boot protocol"
ELF64_ENTRY: Final = "ELF64 entry"
ELF32_ENTRY: Final = "ELF32 entry"

CaseT = TypeVar("CaseT")


class Ruling(NamedTuple):
    """What a rule decides: `road` and `entry` (a physical address) are those of what is accepted. `remarks` are what the loader
    does not look at, and the guest will."""

    outcome: str
    reason: str
    road: str | None = None
    entry: int | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule(Generic[CaseT]):
    """`says` is the rule in words, `source` where it stands in that project, `apply` decides, or leaves it to the next rule."""

    says: str
    source: str
    apply: Callable[[CaseT], Ruling | None]


@dataclass(frozen=True)
class HeaderRule(Generic[CaseT]):
    """A rule about one program header: its name ("PT_LOAD 0") and its fields."""

    says: str
    source: str
    apply: Callable[[CaseT, str, Any], Ruling | None]


@dataclass(frozen=True)
class Walk(Generic[CaseT]):
    """Program headers, by name, one after the other: all rules are applied to each before the next one."""

    headers: Callable[[CaseT], Iterable[tuple[str, Any]]]
    rules: Sequence[HeaderRule[CaseT]]


class Verdict(NamedTuple):
    """What `by` makes of a file: `outcome` is ACCEPTS, REFUSES, CRASHES or UNKNOWN; road, entry and remarks are as in Ruling;
    `rule` is what decided it, and `source` where that stands in the project's code."""

    by: str
    name: str
    outcome: str
    road: str | None
    entry: int | None
    reason: str
    remarks: tuple[str, ...]
    rule: str
    source: str


@dataclass(frozen=True)
class Model(Generic[CaseT]):
    """A loader, or a kind of guest: `by` is its name for programs, `name` the one with the version that was modelled.

    The last of the rules always decides.
    """

    by: str
    name: str
    rules: Sequence[Rule[CaseT] | Walk[CaseT]]

    def judge(self, case: CaseT) -> Verdict:
        """Applies the rules in order; a file that cannot be read any more is one more reason."""
        for step in self.rules:
            for rule, decide in _steps(step, case):
                try:
                    ruling = decide()
                except BootError as error:
                    ruling = Ruling(UNKNOWN, f"the file cannot be read: {error}")
                if ruling is not None:
                    return Verdict(
                        self.by,
                        self.name,
                        ruling.outcome,
                        ruling.road,
                        ruling.entry,
                        ruling.reason,
                        ruling.remarks,
                        rule.says,
                        rule.source,
                    )
        raise AssertionError(f"the rules of {self.by} decide nothing")


def _steps(
    step: Rule[CaseT] | Walk[CaseT], case: CaseT
) -> Iterable[tuple[Rule[CaseT] | HeaderRule[CaseT], Callable[[], Ruling | None]]]:
    if isinstance(step, Rule):
        yield step, lambda: step.apply(case)
        return
    for name, header in step.headers(case):
        for rule in step.rules:
            yield rule, lambda rule=rule, name=name, header=header: rule.apply(case, name, header)  # type: ignore[misc]


def refuses(reason: str) -> Ruling:
    """A ruling that ends the boot."""
    return Ruling(REFUSES, reason)


def entry_remarks(entry: int, spans: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    """A remark if the entry lies in none of the spans (start, end) that are loaded."""
    if any(start <= entry < end for start, end in spans):
        return ()
    return (f"nothing is loaded at {entry:#x}, and it does not look",)
