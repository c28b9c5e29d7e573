"""What a notebook draws: well-formed, complete, readable without seeing it, and with nothing of a guest's that is not text."""

import re

import pytest
from fragments import Fragment
from pvhboot.emu.bitfields import descriptor_fields
from pvhboot.emu.bus import Access
from pvhboot.emu.descriptors import decode_descriptor, read_gdt
from pvhboot.emu.html.markup import element, table, text
from pvhboot.emu.html.style import STYLE
from pvhboot.emu.kit.values import BootModule, IoLog, MemoryMap, MemoryRange, Registers, Segments, StartInfoView
from pvhboot.emu.notebook import record
from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.modules import Module
from pvhboot.shim.machines import Span

HOSTILE = "</code><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;\u202e\x1b[31m"


@pytest.fixture(scope="module")
def boot():
    return record(machine="q35", memory="5G", append="console=ttyS0 <b>&amp;")


@pytest.fixture(scope="module")
def failed():
    return record(machine="microvm", firmware=b"\xf4" * 65536)


PARTS = {
    "the boot": lambda boot: boot,
    "the handoff": lambda boot: boot.handoff,
    "the memory map": lambda boot: boot.memory_map,
    "the GDT": lambda boot: boot.gdt,
    "a descriptor": lambda boot: boot.gdt[0x10],
    "the trace": lambda boot: boot.trace,
    "a slice": lambda boot: boot.trace[5:20],
    "no instructions": lambda boot: boot.trace[:0],
    "an instruction": lambda boot: boot.trace[3],
    "registers": lambda boot: boot.handoff.registers,
    "registers of a trace": lambda boot: boot.before(5),
    "segments": lambda boot: boot.handoff.segments,
    "start_info": lambda boot: boot.handoff.start_info,
    "accesses": lambda boot: boot.io_log,
    "no accesses": lambda _boot: IoLog(),
    "no memory map": lambda _boot: MemoryMap(),
    "no registers": lambda _boot: Registers({}),
    "no segments": lambda _boot: Segments(),
}


@pytest.mark.parametrize("part", PARTS)
def test_each_output_is_well_formed_and_needs_nothing_else(boot, part):
    html = PARTS[part](boot)._repr_html_()
    fragment = Fragment(html)
    for tag, attributes in fragment.elements:
        assert tag not in ("script", "link", "iframe", "img", "object")
        assert not any(name.startswith("on") or name in ("src", "href", "id") for name in attributes)
        assert all(word.startswith("pvhb-") for word in attributes.get("class", "").split())
    assert "url(" not in html
    assert len(html) < 60_000


@pytest.mark.parametrize("part", PARTS)
def test_each_table_can_be_read_aloud_and_by_keys(boot, part):
    fragment = Fragment(PARTS[part](boot)._repr_html_())
    tables, captions = ([*fragment.all(tag)] for tag in ("table", "caption"))
    assert len(tables) == len(captions)
    assert all(attributes["scope"] in ("row", "col") for attributes in fragment.all("th"))
    scrolled = [each for each in fragment.all("div") if each.get("role") == "region"]
    assert len(scrolled) == len(tables)
    assert all(each["tabindex"] == "0" and each["aria-label"] for each in scrolled)


def test_every_rule_of_the_style_is_for_an_output_of_ours_alone():
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", STYLE)
    assert len(rules) > 20
    for selectors, body in rules:
        assert all(each.strip().startswith(".pvhb-output") for each in selectors.split(",") if "(" not in each)
        for colour in re.findall(r"(?:color|background)[\w-]*:([^;]+)", body):
            assert re.match(
                r"inherit|none|currentColor|rgba\(|transparent|repeating-linear-gradient\(135deg,transparent", colour
            )


def test_the_handoff_says_all_that_is_handed_over(boot):
    view = boot.handoff
    fragment = Fragment(view._repr_html_())
    assert "27 of 27 clauses of the PVH ABI are met" in fragment.text
    for name, value in view.registers.items():
        assert re.search(rf"\b{name}\b", fragment.text)
        assert re.search(rf"0x0*{value:x}\b", fragment.text)
    for name, segment in view.segments.items():
        assert f"{name} {segment.selector:#06x} {segment.base:#010x} {segment.limit:#010x}" in fragment.text
    for finding in view.findings:
        assert finding.clause in fragment.text
    assert "console=ttyS0 <b>&amp;" in fragment.text
    assert f"{view.start_info.rsdp:#x}" in fragment.text
    assert "PE 1" in fragment.text
    assert "bit 0: protected mode" in fragment.titles
    assert "IA32_MTRR_DEF_TYPE 0x806 E 1" in fragment.text


def test_a_memory_map_has_each_range_in_its_table_and_in_its_bar(boot):
    fragment = Fragment(boot.memory_map._repr_html_())
    for entry in boot.memory_map:
        assert f"{entry.start:#014x} {entry.end - 1:#014x}" in fragment.text
        assert any(f"from {entry.start:#x} to {entry.end - 1:#x}" in title for title in fragment.titles)
    (bar,) = (each for each in fragment.all("div") if each.get("class") == "pvhb-bar")
    assert bar["aria-hidden"] == "true"  # the table says the same
    assert sum("nothing from" in title for title in fragment.titles) == 3
    assert "RAM 5.0 GiB" in fragment.text


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ([(0x1000, 0x1000, 1), (0, 0x1000, 1)], "lies before the entry above"),
        ([(0, 0x2000, 1), (0x1000, 0x1000, 2)], "overlaps the entry above"),
        ([(0, 0, 1)], "empty"),
        ([(0, 1 << 64, 99)], "type 99"),
        ([((1 << 64) - 0x1000, 0x2000, 7)], "PMEM 8 KiB"),
    ],
)
def test_a_memory_map_that_is_wrong_is_drawn_and_says_so(ranges, said):
    assert said in Fragment(MemoryMap(MemoryRange(*each) for each in ranges)._repr_html_()).text


def test_a_gdt_has_each_field_of_each_descriptor(boot):
    fragment = Fragment(boot.gdt._repr_html_())
    for selector, descriptor in boot.gdt.items():
        assert f"{selector:#06x}" in fragment.text
        for field in descriptor_fields(descriptor.value):
            assert f"{field.name}, bits {field.bits}: {field.meaning}" in fragment.titles
    assert "0x0018 ds es ss 00 1 1 0 0 1111 1 00 1 0011 000000 ffff 32-bit data, writable" in fragment.text
    assert "the null descriptor" in fragment.text


def test_a_descriptor_has_its_64_bits():
    fragment = Fragment(decode_descriptor(0x10, 0x00CF9B000000FFFF)._repr_html_())
    assert "47 P 1 present" in fragment.text
    assert "43:40 type 1011 code, readable, accessed" in fragment.text
    assert "descriptor 0x00cf9b000000ffff: base 0x00000000" in fragment.text


def test_a_long_gdt_is_cut():
    memory = GuestMemory([Span("RAM", 0, 1 << 20)], bytes(4096))
    gdt = read_gdt(memory, 0, 0xFFFF)
    assert len(gdt) == 8192
    assert "8172 more" in Fragment(gdt._repr_html_()).text
    assert "8171 more" in str(gdt)  # without the null descriptor
    assert len(gdt._repr_html_()) < 60_000


def test_a_trace_has_source_and_effect_of_each_instruction(boot):
    trace = boot.trace[:40]
    fragment = Fragment(trace._repr_html_())
    assert "trace: 40 instructions, 1 to 40" in fragment.text
    for record_ in trace:
        assert record_.text in fragment.text
        assert " ".join(trace.source(record_).text.split()) in fragment.text
        assert record_.place.source in fragment.text
        for name, value in record_.changes.items():
            assert f"{name}={value:#x}" in fragment.text
    assert "cr0=0x11 ET PE" in fragment.text


def test_a_long_trace_is_cut_with_a_note_and_shows_the_handoff(boot):
    fragment = Fragment(boot.trace._repr_html_())
    assert f"… {len(boot.trace) - 60} more: a slice shows them, as in trace[100:140]" in fragment.text
    assert "the handoff: from here on it is the kernel that runs" in fragment.text
    assert len([*fragment.all("tr")]) == 1 + 60 + 2


def test_a_long_log_is_cut():
    log = IoLog([Access("out", 0x80, 1, number & 0xFF, "post") for number in range(1000)], ["post"])
    text = Fragment(log._repr_html_()).text
    assert "1000 accesses to devices" in text
    assert "… 880 more" in text
    assert "999 out 0x0080 1 ← 0xe7 post" in text


def test_a_boot_that_failed_says_where_and_why(failed):
    fragment = Fragment(failed._repr_html_())
    assert "✗ the handoff was not reached: halt" in fragment.text
    assert "it ended at 0xfff" in fragment.text
    assert "likely cause: " in fragment.text
    assert "what to do: " in fragment.text
    assert "real mode, CS based at 0xffff0000" in fragment.text
    assert "hlt" in fragment.text


def test_a_handoff_that_is_wrong_has_its_clauses_at_the_top():
    """ebx is cleared just before the jump: there is no start_info to be shown."""
    boot = record(machine="bare", memory="64M")
    registers = dict(boot.handoff.handoff.registers, ebx=0xF0000000)
    view = type(boot.handoff)(boot.handoff.handoff._replace(registers=registers), boot.plan)
    fragment = Fragment(view._repr_html_())
    assert fragment.text.index("violated") < fragment.text.index("registers")
    assert "✗ " in fragment.text
    assert "no start_info: ebx is 0xf0000000, where no memory is" in fragment.text


def is_harmless(html):
    """The hostile text is there, and is text."""
    fragment = Fragment(html)
    assert "<script>alert(1)</script>" in fragment.text
    assert not [tag for tag, _ in fragment.elements if tag in ("script", "img")]
    assert "\u202e" not in html
    assert "\x1b" not in html
    return True


def test_what_is_hostile_is_shown_as_text(tmp_path):
    (tmp_path / "initrd").write_bytes(b"x")
    line = HOSTILE.replace("\x1b", "")
    boot = record(memory="64M", append=line, modules=[Module(str(tmp_path / "initrd"), line)])
    assert is_harmless(boot.handoff._repr_html_())
    assert is_harmless(boot.handoff.start_info._repr_html_())


@pytest.mark.parametrize(
    "value",
    [
        StartInfoView(0, 1, 0, MemoryMap(), [BootModule(0, 0, HOSTILE)], None, 0),
        StartInfoView(0, 1, 0, MemoryMap(), [], HOSTILE, 0),
        IoLog([Access("in", 0x61, 1, 0, HOSTILE)]),
        Registers({HOSTILE: 1}),
        Segments({HOSTILE: decode_descriptor(8, 0).segment}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_value_gets_out_of_its_cell(value):
    assert is_harmless(value._repr_html_())


def test_markup_is_escaped_once():
    assert text('<&">') == "&lt;&amp;&quot;&gt;"
    assert element("td", element("b", "<"), title='"><script>') == '<td title="&quot;&gt;&lt;script&gt;"><b>&lt;</b></td>'
    assert element("p", "a\nb\x00\udcff\u2028") == "<p>a\\nb\\x00\\udcff\\u2028</p>"
    assert element("td", colspan=3, title=None, classes="a b") == '<td class="pvhb-a pvhb-b" colspan="3"></td>'
    assert 'aria-label="a &lt; b"' in table("a < b", ("x",), [])
