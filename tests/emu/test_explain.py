"""The story of a boot: which chapters each machine has, that all that ran is told once, and that what is told is so."""

import re
from functools import cache

import pytest
from pvhboot.emu.engines.base import Limits
from pvhboot.emu.explain import division
from pvhboot.emu.explain.division import PIECES, chapter_at, divide
from pvhboot.emu.explain.facts_cpu import CPU_FACTS
from pvhboot.emu.explain.facts_end import end_facts
from pvhboot.emu.explain.facts_host import HOST_FACTS
from pvhboot.emu.explain.outline import When, filled
from pvhboot.emu.explain.story import EXHIBITS, OUTLINES, tell
from pvhboot.emu.explain.telling import Telling
from pvhboot.emu.explain.text import WIDTH, story_text
from pvhboot.emu.explain.told import Chapter, Exhibit, Story
from pvhboot.emu.memmap_words import type_name
from pvhboot.emu.recorded import Recorded, record_boot
from pvhboot.emu.session import get_engine
from pvhboot.emu.source_lines import SourceLines
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import pvh, x86
from pvhboot.shim.blob import Blob
from pvhboot.shim.defs import Options
from pvhboot.shim.errors import BootError
from pvhboot.shim.image import asm_source, build, firmware_units
from pvhboot.shim.machines import BARE, FIRMWARES, MACHINES, MIB, ROM_GRANULE
from pvhboot.shim.stock import default_blob, default_guest

_FIRST = ["reset", "a20", "gdt", "protected", "flat"]
_LAST = ["start_info", "tss", "mtrr", "handoff", "entry", "check"]
CHAPTERS = {
    "bare": [*_FIRST, "params", "memmap", "kernel", *_LAST],
    "microvm": [*_FIRST, "fw_cfg", "memmap", "kernel", "tables", *_LAST],
    "microvm-acpi": [*_FIRST, "fw_cfg", "memmap", "kernel", "acpi", *_LAST],
    "pc": [*_FIRST, "chipset", "fw_cfg", "memmap", "kernel", "acpi", "tables", *_LAST],
    "q35": [*_FIRST, "chipset", "fw_cfg", "memmap", "kernel", "acpi", "tables", *_LAST],
}
COMMAND_LINE = "console=ttyS0"
INITRD_BYTES = 5000


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The recorded boot and its story, by machine."""
    initrd = tmp_path_factory.mktemp("story") / "initrd"
    initrd.write_bytes(b"i" * INITRD_BYTES)

    @cache
    def of(machine: str) -> tuple[Recorded, Story]:
        spec = MACHINES[machine]
        blob = default_blob(spec)
        with Kernel.from_bytes(default_guest(64), "conformance guest") as kernel:
            plan = make_plan(spec, blob.data, kernel, memory=64 * MIB, modules=[Module(str(initrd))], cmdline=COMMAND_LINE)
            recorded = record_boot(plan, blob, get_engine("unicorn"), Limits(seconds=60.0))
            return recorded, tell(recorded)

    return of


def _chapter(story: Story, name: str) -> Chapter:
    return next(chapter for chapter in story.chapters if chapter.name == name)


def _exhibit(story: Story, chapter: str, start: str) -> Exhibit:
    return next(exhibit for exhibit in _chapter(story, chapter).exhibits if exhibit.title.startswith(start))


def _is_routine(file: str) -> bool:
    """All of the file is called from chapters."""
    return PIECES[file] == (("", ""),)


def _said(chapter: Chapter) -> str:
    return " ".join(chapter.why)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_chapters_of_a_machine(machine, told):
    _, story = told(machine)
    assert [chapter.name for chapter in story.chapters] == CHAPTERS[machine]
    assert [chapter.number for chapter in story.chapters] == list(range(1, len(CHAPTERS[machine]) + 1))
    assert story.clean
    for chapter in story.chapters:
        assert chapter.title, chapter.name
        assert chapter.why, chapter.name
        assert chapter.see, chapter.name


@pytest.mark.parametrize("machine", MACHINES)
def test_every_line_that_ran_is_told_in_one_chapter(machine, told):
    recorded, story = told(machine)
    ran: dict[str, set[str]] = {}
    for chapter in story.chapters:
        for section in chapter.ran:
            for line in section.lines:
                ran.setdefault(line.where, set()).add(chapter.name)
    executed = {record.place.source for record in recorded.firmware}
    phases = {place for place in executed if not _is_routine(place.split(":")[0])}
    assert phases <= ran.keys()
    assert {where: names for where, names in ran.items() if len(names) > 1} == {}
    assert ran.keys() <= executed


@pytest.mark.parametrize("machine", MACHINES)
def test_every_instruction_is_counted_once(machine, told):
    recorded, story = told(machine)
    assert sum(chapter.instructions for chapter in story.chapters) == len(recorded.firmware) == story.instructions
    for chapter in story.chapters:
        shown = sum(section.instructions for section in chapter.ran if not _is_routine(section.title.split(":")[0]))
        assert shown + sum(routine.instructions for routine in chapter.calls) == chapter.instructions, chapter.name


def test_every_file_of_the_firmware_has_its_chapter():
    options = Options(ROM_GRANULE, verbose=True, marks=True)
    units = {unit.name for spec in FIRMWARES.values() for unit in firmware_units(spec, [], {}, options)}
    data = {"macros.s", "tables.s", "panics.s", "posts.s", "machine_records.s", "file_names.s", "mp_static.s"}
    assert units - data <= PIECES.keys() <= units | {"stage.s", "stage_end.s"}


@pytest.mark.parametrize(("file", "start"), [(file, start) for file, found in PIECES.items() for start, _ in found if start])
def test_where_a_chapter_begins_within_a_file(file, start):
    assert sum(line.strip().startswith(start) for line in asm_source(file).splitlines()) == 1


def test_a_line_of_a_changed_file_stays_with_its_chapter():
    changed = {"realmode.s": "# all of it is other than it was\nnop\n"}
    sources = SourceLines(Blob(b"", {}, [], {}), changed)
    assert chapter_at(sources, "realmode.s", 2) == division.GDT
    assert chapter_at(sources, "somebodys.s", 1) == division.STAGE


def test_where_a_chapter_begins_in_a_firmware_that_somebody_has_changed():
    source = asm_source("handoff.s")
    assert source.count("    ltr ax\n") == 1
    blob = build(BARE, sources={"handoff.s": source.replace("    ltr ax\n", "    nop\n    nop\n    ltr ax\n")})
    sources = SourceLines(blob)  # whose own lines are two fewer
    lines = {line.text: line.line for line in blob.listing if line.file == "handoff.s"}
    assert chapter_at(sources, "handoff.s", lines["ltr ax"]) == division.TSS
    assert chapter_at(sources, "handoff.s", lines["wrmsr"]) == division.MTRR
    jump = next(number for text, number in lines.items() if text.startswith("jmp dword"))
    assert chapter_at(sources, "handoff.s", jump) == division.HANDOFF


@pytest.mark.parametrize("machine", MACHINES)
def test_the_descriptors_are_those_of_the_rom(machine, told):
    recorded, story = told(machine)
    blob = recorded.outcome.blob
    at = blob.symbols["rom_gdt"] - blob.paddr
    rows = _exhibit(story, "gdt", "The descriptors").rows
    held = {row.data["selector"]: int(row.data["value"], 16) for row in rows if "name" not in row.data}
    assert held == {number: int.from_bytes(blob.data[at + number :][:8], "little") for number in range(0, 32, 8)}
    code = next(selector for selector in held if selector == recorded.outcome.handoff.segments["cs"].selector)
    value = 0
    for row in rows:
        if row.data["selector"] == code and "bits" in row.data:
            value |= row.data["value"] << int(row.data["bits"].split(":")[-1])
    assert value == held[code]
    assert f"{blob.symbols['rom_gdt']:#x}" in _said(_chapter(story, "gdt"))


@pytest.mark.parametrize("machine", MACHINES)
def test_the_memory_map_is_that_of_the_handoff(machine, told):
    recorded, story = told(machine)
    rows = _exhibit(story, "memmap", "The memory map").rows
    memmap = recorded.outcome.tables.memmap
    assert [(row.data["start"], row.data["size"], row.data["type"]) for row in rows] == [entry[:3] for entry in memmap]
    for row, entry in zip(rows, memmap, strict=True):
        assert row.text.startswith(f"{entry.addr:#x} to {entry.end - 1:#x}: {type_name(entry.type)}")


@pytest.mark.parametrize("machine", MACHINES)
def test_start_info_field_by_field(machine, told):
    recorded, story = told(machine)
    rows = _exhibit(story, "start_info", "start_info").rows
    assert {row.data["name"]: row.data["value"] for row in rows} == recorded.outcome.tables.start_info._asdict()
    assert sum(row.data["size"] for row in rows) == pvh.HVM_START_INFO.size
    assert _chapter(story, "start_info").title.startswith(f"{pvh.HVM_START_INFO.size} bytes")


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_to_be_started(machine, told):
    recorded, story = told(machine)
    kernel, line, module = _exhibit(story, "kernel", "What is").rows
    assert kernel.data["entry"] == recorded.outcome.plan.entry
    assert line.data["text"] == COMMAND_LINE
    assert module.data["size"] == INITRD_BYTES


def test_the_reset(told):
    _, story = told("q35")
    reset = _chapter(story, "reset")
    assert reset.instructions == 1
    assert f"{x86.RESET_VECTOR:#x}" in _said(reset)
    assert f"{x86.RESET_CS_BASE:#x}" in _said(reset)
    assert "0xf0000 to 0xfffff" in _said(reset)  # the low copy of the ROM
    assert [line.text.strip().split()[0] for section in reset.ran for line in section.lines] == ["jmp"]
    assert "at no other place" in _said(_chapter(told("bare")[1], "reset"))


def test_a_firmware_that_leaves_the_gate_alone(told):
    a20 = _chapter(told("pc")[1], "a20")
    assert a20.instructions == 0
    assert not a20.ran
    assert "this firmware does nothing" in _said(a20)


def test_protected_mode(told):
    _, story = told("bare")
    changed = {one.register: one for one in _chapter(story, "protected").registers}
    assert changed["cr0"][1:3] == (x86.RESET_CR0, x86.CR0_PE | x86.CR0_ET)
    for word in ("PE becomes 1", "CD becomes 0", "NW becomes 0"):
        assert word in changed["cr0"].meaning
    assert "hidden base from 0xffff0000 to 0x0" in changed["cs"].meaning
    loaded = {one.register for one in _chapter(story, "flat").registers}
    assert loaded == {"ds", "es", "ss", "esp"}


def test_the_task_register(told):
    recorded, story = told("microvm")
    tss = _chapter(story, "tss")
    changed = {one.register: one for one in tss.registers}
    assert changed["tr"].after == recorded.outcome.handoff.segments["tr"].selector
    assert changed["gdtr_base"].after == recorded.outcome.plan.spec.low.gdt.start
    kind = next(row for row in tss.exhibits[0].rows if row.data.get("name") == "type")
    assert kind.data["value"] == x86.TYPE_TSS32_BUSY


def test_the_memory_types(told):
    recorded, story = told("pc")
    mtrr = _chapter(story, "mtrr")
    assert f"gets {recorded.outcome.handoff.mtrr_def_type:#x}" in _said(mtrr)
    assert mtrr.exhibits[0].title.endswith(f"{x86.MTRR_DEF_TYPE_WRITE_BACK:#x}")


def test_the_parameter_block(told):
    recorded, story = told("bare")
    rows = {row.data["name"]: row.data["value"] for row in _exhibit(story, "params", "The header").rows}
    assert rows["entry"] == recorded.outcome.plan.entry
    assert rows["e820_entries"] == len(recorded.outcome.tables.memmap)


@pytest.mark.parametrize("machine", ["microvm", "microvm-acpi", "pc", "q35"])
def test_fw_cfg_is_told_by_the_names_of_its_items(machine, told):
    recorded, story = told(machine)
    asked = [one.meaning for name in ("fw_cfg", "kernel") for one in _chapter(story, name).devices]
    assert asked[0] == "fw_cfg: the DMA register says 'QEMU'"
    for words in (
        "the directory of files (key 0x19)",
        "file etc/e820 (key",
        f"the kernel's entry (key 0x10), 4 bytes to 0x1034, which is {recorded.outcome.plan.entry:#x}",
        f"the initrd's size (key 0xb), 4 bytes to 0x6048, which is {INITRD_BYTES:#x}",
        f"the command line itself (key 0x15), {len(COMMAND_LINE) + 1} bytes to 0x20000",
    ):
        assert any(words in meaning for meaning in asked), words


@pytest.mark.parametrize("machine", ["microvm-acpi", "pc", "q35"])
def test_acpi(machine, told):
    recorded, story = told(machine)
    acpi = _chapter(story, "acpi")
    rsdp = recorded.outcome.tables.start_info.rsdp_paddr
    assert f"RSDP, here at {rsdp:#x}" in _said(acpi)
    assert re.search(r"the script has \d+ × ALLOCATE", _said(acpi))
    rows = acpi.exhibits[0].rows
    assert {"RSDT", "XSDT"} & {row.data.get("table") for row in rows}
    assert {"FACP", "DSDT"} <= {row.data.get("table") for row in rows}
    assert "etc/acpi/rsdp" in {row.data.get("file") for row in rows}
    sums = next(routine for routine in acpi.calls if routine.name == "sum_bytes")
    assert f"{sums.instructions:,} of the {acpi.instructions:,} instructions" in _said(acpi)


def test_the_chipset(told):
    said = [one.meaning for one in _chapter(told("q35")[1], "chipset").devices]
    for name in ("PMBASE", "PAM", "PCIEXBAR"):
        assert any(f"({name}) becomes" in meaning for meaning in said), name
    assert not any("PCIEXBAR" in one.meaning for one in _chapter(told("pc")[1], "chipset").devices)
    assert "PCIEXBAR" not in _said(_chapter(told("pc")[1], "chipset"))


@pytest.mark.parametrize("machine", MACHINES)
def test_the_handoff_the_kernel_and_the_check(machine, told):
    recorded, story = told(machine)
    handoff = recorded.outcome.handoff
    assert f"Here EBX is {handoff.registers['ebx']:#x}, and there start_info lies." in _said(_chapter(story, "handoff"))
    first = _chapter(story, "entry").exhibits[0].rows
    assert first[0].data["address"] == recorded.outcome.plan.entry
    assert len(first) == len(recorded.kernel) == 16
    assert f"{len(recorded.outcome.findings)} of {len(recorded.outcome.findings)} clauses are met" in _said(
        _chapter(story, "check")
    )


@pytest.mark.parametrize("machine", MACHINES)
def test_the_text_fits(machine, told):
    _, story = told(machine)
    lines = list(story_text(story, story.chapters))
    assert max(map(len, lines)) <= WIDTH
    assert "\x1b" not in "".join(lines)
    assert not any(line != line.rstrip() for line in lines)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_prose_knows_all_its_facts(machine, told):
    """Whatever a boot is like, no paragraph asks for what nobody has found out."""
    recorded, _ = told(machine)
    telling = Telling(recorded)
    facts = {name: value for of in (*CPU_FACTS, *HOST_FACTS, end_facts) for name, value in of(telling).items()}
    for outline in OUTLINES.values():
        assert set(outline.exhibits) <= EXHIBITS.keys()
        for paragraph in outline.why:
            text = paragraph.text if isinstance(paragraph, When) else paragraph
            assert "{" not in filled(text, facts)
            assert not isinstance(paragraph, When) or paragraph.fact in facts


def test_the_parts_of_a_boot_are_in_its_order(told):
    recorded, _ = told("q35")
    parts = divide(recorded)
    numbers = [record.number for part in parts for record in part.records]
    assert numbers == sorted(numbers)
    assert [part.name for part in parts] == [name for name in division.ORDER if name in {part.name for part in parts}]


def test_a_run_without_an_instruction(told):
    recorded, _ = told("bare")
    with pytest.raises(BootError, match="nothing to tell of: no instruction was executed; limit: "):
        tell(recorded._replace(records=()))
