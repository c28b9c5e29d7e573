"""A handoff for a notebook: the verdict, and what the kernel is given."""

from collections.abc import Iterator, Sequence

from pvhboot.loader.picture import about

from ..check import OK, UNOBSERVABLE, Finding
from ..kit.values import StartInfoView
from ..kit.view import HandoffView
from ..report.text import finding_lines
from .markup import Markup, code, element, folded, fragment, row, table
from .memory import memory_map_parts
from .registers import registers_tables, segments_table


def handoff_html(view: HandoffView) -> str:
    """All of it."""
    heading = f"PVH handoff at {view.registers['eip']:#x}, engine {view.engine}"
    return fragment(heading, element("h3", heading), *handoff_parts(view))


def handoff_parts(view: HandoffView) -> Iterator[Markup]:
    """All but its heading."""
    yield verdict(finding_lines(view.findings, verbose=False)[0].removeprefix("check: "), good=view.clean)
    yield from findings_parts(view.findings)
    yield folded(
        "registers", *registers_tables(view.registers, view.handoff.mtrr_def_type), segments_table(view.segments), is_open=True
    )
    if view.tables.start_info is None:
        yield element("p", f"no start_info: ebx is {view.registers['ebx']:#x}, where no memory is")
    else:
        yield folded("start_info", *_start_info_parts(view.start_info), is_open=True)


def findings_parts(findings: Sequence[Finding]) -> Iterator[Markup]:
    """The clauses that are not met, and, folded, all of them."""
    if amiss := [finding for finding in findings if finding.status != OK]:
        yield _findings("not met", amiss)
    yield folded("the check, clause by clause", _findings("the clauses of the PVH ABI", findings))


def verdict(said: str, *, good: bool) -> Markup:
    """A sentence that is good news or bad."""
    return element("p", element("span", f"{'✓' if good else '✗'} {said}", classes=f"badge {'good' if good else 'bad'}"))


def _findings(caption: str, findings: Sequence[Finding]) -> Markup:
    rows = (
        row(
            finding.clause,
            finding.status,
            element("td", finding.detail, classes="prose"),
            classes="" if finding.status == OK else "reserved" if finding.status == UNOBSERVABLE else "bad",
        )
        for finding in findings
    )
    return table(caption, ("clause", "status", "what was seen"), rows)


def start_info_html(info: StartInfoView) -> str:
    """What %ebx leads to."""
    return fragment("start_info", *_start_info_parts(info))


def _start_info_parts(info: StartInfoView) -> Iterator[Markup]:
    yield table(
        "fields",
        ("field", "value"),
        [
            row("magic", code(f"{info.magic:#x}")),
            row("version", code(info.version)),
            row("flags", code(f"{info.flags:#x}")),
            row("command line", element("td", "none" if info.cmdline is None else code(info.cmdline))),
            row("RSDP", code(f"{info.rsdp:#x}") if info.rsdp else "none"),
        ],
    )
    if info.modules:
        rows = (
            row(
                number,
                code(f"{module.paddr:#x}"),
                about(module.size),
                "none" if module.cmdline is None else code(module.cmdline),
            )
            for number, module in enumerate(info.modules)
        )
        yield table("modules", ("module", "first byte", "size", "command line"), rows)
    yield from memory_map_parts(info.memmap)
