"""The handoff as a test sees it, or as a notebook shows it."""

from collections.abc import Collection, Mapping, Sequence

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi.x86 import CR0_PG
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE

from ..check import OK, UNOBSERVABLE, VIOLATED, Finding, check, is_clean
from ..clauses import CLAUSES
from ..comparison import REGISTERS, SEGMENTS
from ..descriptors import Gdt, read_gdt
from ..handoff import UNOBSERVABLE_CLAUSES, Handoff
from ..shown import Printer, show_text
from ..tables import Tables, read_tables
from .differences import differences
from .values import BootModule, MemoryMap, MemoryRange, Registers, Segments, StartInfoView


class HandoffView:
    """The machine when the kernel's first instruction is next: what it was then stays, whatever the machine does later. `print`
    tells it as `pvhboot boot` does; a notebook draws it."""

    def __init__(
        self,
        handoff: Handoff,
        plan: BootPlan,
        *,
        tables: Tables | None = None,
        findings: Sequence[Finding] | None = None,
        gdt: Gdt | None = None,
    ) -> None:
        """`tables`, `findings` and `gdt` are what was seen at the handoff; what is not given is looked up in memory as it is
        now."""
        self._handoff, self._plan = handoff, plan
        self.tables = read_tables(handoff) if tables is None else tables
        self.refused: frozenset[str] = frozenset()  # the clauses for which check_abi has failed
        self._findings = None if findings is None else tuple(findings)
        self._gdt = _gdt_of(handoff) if gdt is None else gdt

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
    def segments(self) -> Segments:
        """By name: cs, ds, es, ss, fs, gs, tr, each with its hidden part."""
        return Segments(self._handoff.segments)

    @property
    def gdt(self) -> Gdt:
        """The descriptors that GDTR leads to, by selector; BootError if paging is on, so that nobody knows where they lie."""
        if self._gdt is None:
            raise BootError("paging is on: where the GDT lies in physical memory is not known")
        return self._gdt

    @property
    def memory_map(self) -> MemoryMap:
        """What start_info tells of memory; empty if there is none."""
        return MemoryMap(MemoryRange(entry.addr, entry.size, entry.type) for entry in self.tables.memmap)

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
            self.memory_map,
            self._modules,
            _text(tables.cmdline),
            info.rsdp_paddr,
        )

    @property
    def _modules(self) -> list[BootModule]:
        tables = self.tables
        return [
            BootModule(entry.paddr, entry.size, _text(line))
            for entry, line in zip(tables.modules, tables.module_cmdlines, strict=True)
        ]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the check says, clause by clause. It looks at memory: a machine asks for it before it goes on."""
        if self._findings is None:
            self._findings = tuple(check(self._handoff, self._plan))
        return self._findings

    @property
    def clean(self) -> bool:
        """Whether no clause of the ABI is violated or unseen."""
        return is_clean(self.engine, self.findings)

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
            "memory map": self.memory_map,
            "modules": self._modules,
            "command line": _text(self.tables.cmdline),
        }

    def diff(self, other: "HandoffView") -> str:
        """How two handoffs differ, `<` for this one and `>` for the other, in their `parts`; empty if they do not."""
        return "\n".join(differences(self.parts, other.parts))

    def __eq__(self, other: object) -> bool:
        return self.parts == other.parts if isinstance(other, HandoffView) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        met = sum(finding.status == OK for finding in self.findings)
        return f"<handoff at {self.registers['eip']:#x} on {self.engine}: {met} of {len(self.findings)} clauses met>"

    def __str__(self) -> str:
        from ..report.text import finding_lines, handoff_lines

        return "\n".join([*handoff_lines(self._handoff, self.tables), "", *finding_lines(self.findings, verbose=False)])

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        show_text(self, printer, cycle)

    def _repr_html_(self) -> str:
        from ..html.handoff import handoff_html

        return handoff_html(self)


def _gdt_of(handoff: Handoff) -> Gdt | None:
    registers = handoff.registers
    if registers["cr0"] & CR0_PG:
        return None
    loaded = {name: segment.selector for name, segment in handoff.segments.items()}
    return read_gdt(handoff.memory, registers["gdtr_base"], registers["gdtr_limit"], loaded)


def _text(line: bytes | None) -> str | None:
    return None if line is None else line.decode(errors="replace")
