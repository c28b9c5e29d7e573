"""The handoff as a test sees it."""

from collections.abc import Collection, Mapping
from functools import cached_property

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE

from ..check import OK, UNOBSERVABLE, VIOLATED, Finding, check
from ..clauses import CLAUSES
from ..comparison import REGISTERS, SEGMENTS
from ..handoff import UNOBSERVABLE_CLAUSES, Handoff
from ..tables import read_tables
from .differences import differences
from .values import BootModule, MemoryRange, Registers, StartInfoView


class HandoffView:
    """The machine when the kernel's first instruction is next: what it was then stays, whatever the machine does later."""

    def __init__(self, handoff: Handoff, plan: BootPlan) -> None:
        self._handoff, self._plan = handoff, plan
        self.tables = read_tables(handoff)
        self.refused: frozenset[str] = frozenset()  # the clauses for which check_abi has failed

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self._handoff.engine

    @property
    def handoff(self) -> Handoff:
        """What the check looks at; its memory is live."""
        return self._handoff

    @property
    def instructions(self) -> int | None:
        """How many the firmware took; None if the engine does not count them."""
        return self._handoff.counts.get("instructions")

    @property
    def registers(self) -> Registers:
        """By name: eax … edi, ebp, esp, eip, eflags, cr0, cr3, cr4, efer, gdtr_base, gdtr_limit."""
        return Registers(self._handoff.registers)

    @property
    def segments(self) -> dict[str, Segment]:
        """By name: cs, ds, es, ss, fs, gs, tr, each with its hidden part."""
        return dict(self._handoff.segments)

    @property
    def start_info(self) -> StartInfoView:
        """What %ebx leads to; BootError if there is no memory."""
        tables = self.tables
        if tables.start_info is None:
            raise BootError(f"no start_info: ebx is {self._handoff.registers['ebx']:#x}, where no memory is")
        info = tables.start_info
        return StartInfoView(
            info.magic,
            info.version,
            info.flags,
            self._memmap,
            self._modules,
            _text(tables.cmdline),
            info.rsdp_paddr,
        )

    @property
    def _memmap(self) -> list[MemoryRange]:
        return [MemoryRange(entry.addr, entry.size, entry.type) for entry in self.tables.memmap]

    @property
    def _modules(self) -> list[BootModule]:
        tables = self.tables
        return [
            BootModule(entry.paddr, entry.size, _text(line))
            for entry, line in zip(tables.modules, tables.module_cmdlines, strict=True)
        ]

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What the check says, clause by clause. It looks at memory: a machine asks for it before it goes on."""
        return tuple(check(self._handoff, self._plan))

    def check_abi(self, allow: Collection[str] = (), *, strict: bool = False) -> None:
        """AssertionError with each clause of the PVH ABI that is violated, or that nobody could see, but for those that are
        allowed. `strict`: one that is allowed and met is an error, too. BootError for a clause that there is not."""
        allow = (allow,) if isinstance(allow, str) else allow
        for clause in allow:
            if clause not in CLAUSES:
                raise BootError(f"no clause {clause!r}; there is: {', '.join(CLAUSES)}")
        unseen = UNOBSERVABLE_CLAUSES.get(self.engine, frozenset())
        wrong = [
            finding
            for finding in self.findings
            if finding.clause not in allow
            and (finding.status == VIOLATED or (finding.status == UNOBSERVABLE and finding.clause not in unseen))
        ]
        met = [finding for finding in self.findings if strict and finding.clause in allow and finding.status == OK]
        if not wrong and not met:
            return
        self.refused = frozenset(finding.clause for finding in wrong)
        lines = []
        if wrong:
            count = f"{len(wrong)} of {len(self.findings)} clauses of the PVH ABI {'is' if len(wrong) == 1 else 'are'} not met"
            lines.append(count + (" that no allow excuses:" if allow else ":"))
            lines += [f"  {finding.clause:<16}  {finding.detail}" for finding in wrong]
            if self._plan.memmap is None and self._plan.spec is BARE:  # of a firmware that pvhboot has not built
                lines.append(
                    'the machine is bare, which has no device to ask: a firmware for QEMU wants machine="microvm", say'
                )
        if met:
            lines.append("allowed to be violated, but met (take them off `allow`): " + ", ".join(each.clause for each in met))
        raise AssertionError("\n".join(lines))

    @property
    def parts(self) -> Mapping[str, object]:
        """What is compared of two handoffs, by its name: what the ABI and the firmware define."""
        handoff = self._handoff
        return {
            "registers": Registers({name: handoff.registers[name] for name in REGISTERS}),
            "segments": {name: handoff.segments[name] for name in SEGMENTS},
            "start_info": self.tables.start_info,
            "memory map": self._memmap,
            "modules": self._modules,
            "command line": _text(self.tables.cmdline),
        }

    def diff(self, other: "HandoffView") -> str:
        """How two handoffs differ, `<` for this one and `>` for the other, in their `parts`; empty if they do not."""
        return "\n".join(differences(self.parts, other.parts))

    def __eq__(self, other: object) -> bool:
        return self.parts == other.parts if isinstance(other, HandoffView) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


def _text(line: bytes | None) -> str | None:
    return None if line is None else line.decode(errors="replace")
