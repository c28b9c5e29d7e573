"""`pvhboot explain`: what it prints, what it takes, and how it ends."""

import json
import re

import pytest
from pvhboot.emu.cli import main
from pvhboot.emu.explain.text import WIDTH
from pvhboot.emu.inputs import BUILTIN_GUEST
from pvhboot.loader.recording import default_recording
from pvhboot.shim.abi import acpi_loader
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE, MICROVM_ACPI, UNIVERSAL
from pvhboot.shim.stage import make_stage

ESCAPES = re.compile(r"\x1b\[\d+m")


@pytest.fixture
def explain(capsys):
    """Runs the command with these arguments; its status, and what it has printed on both streams."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main(["explain", *map(str, arguments)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def _titles(text: str) -> list[str]:
    return re.findall(r"^Chapter \d+ of \d+ \((\w+)\): ", text, re.MULTILINE)


def test_the_whole_story(explain):
    status, out, err = explain()
    assert (status, err) == (0, "")
    assert out.startswith(f"{BUILTIN_GUEST} (ELF64, entry 0x100000) on bare with 512 MiB, firmware ")
    assert _titles(out)[0] == "reset"
    assert _titles(out)[-1] == "check"
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= WIDTH


def test_the_list_names_what_is_told(explain):
    _, listed, _ = explain("--list")
    _, out, _ = explain()
    rows = [re.fullmatch(r"(\d+)\. (\w+): (.+)", line) for line in listed.splitlines()]
    assert [row[2] for row in rows] == _titles(out)
    assert [int(row[1]) for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert f"Chapter {row[1]} of {len(rows)} ({row[2]}): {row[3]}\n" in out


def test_only_some_chapters(explain):
    status, out, _ = explain("--chapter", "tss", "--chapter", "4", "--chapter", "gdt", "--chapter", "3")
    assert status == 0
    assert _titles(out) == ["gdt", "protected", "tss"]
    assert out.startswith("Chapter 3 of ")


@pytest.mark.parametrize("word", ["acpi", "0", "99", "GDT", ""])
def test_a_chapter_that_is_not_there(word, explain):
    status, out, err = explain("--chapter", "gdt", "--chapter", word)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert f"--chapter {word}: this boot has no such chapter; there is 1 reset, 2 a20, 3 gdt" in err


def test_json(explain):
    status, out, _ = explain("--json", "--machine", "q35")
    story = json.loads(out)
    assert status == 0
    assert story["clean"] is True
    assert story["sees_memory"] is True
    assert sum(chapter["instructions"] for chapter in story["chapters"]) == story["instructions"]
    keys = ["number", "name", "title", "why", "first", "last", "instructions", "ran", "calls", "registers", "scratch", "memory"]
    for chapter in story["chapters"]:
        assert list(chapter) == [*keys, "devices", "exhibits", "see"]
        for section in chapter["ran"]:
            assert list(section) == ["title", "comment", "lines", "instructions", "left_out"]
            assert all(list(line) == ["where", "text", "times"] for line in section["lines"])


def test_json_of_a_chapter_and_of_the_list(explain):
    _, out, _ = explain("--json", "--chapter", "gdt")
    (chapter,) = json.loads(out)["chapters"]
    assert chapter["registers"][0]["register"] == "gdtr_base"
    assert chapter["exhibits"][0]["rows"][0]["value"] == "0x0000000000000000"
    _, out, _ = explain("--json", "--list")
    assert json.loads(out)["chapters"][0] == {
        "number": 1,
        "name": "reset",
        "title": "Where the first instruction comes from",
    }


@pytest.mark.parametrize(
    ("options", "is_terminal", "environment", "coloured"),
    [
        ((), False, {}, False),
        ((), True, {}, True),
        ((), True, {"NO_COLOR": "1"}, False),
        ((), True, {"NO_COLOR": ""}, True),
        ((), True, {"TERM": "dumb"}, False),
        (("--color", "never"), True, {}, False),
        (("--color", "always"), False, {"NO_COLOR": "1"}, True),
        (("--color", "always", "--json"), True, {}, False),
    ],
)
def test_colour(options, is_terminal, environment, coloured, explain, monkeypatch):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    _, out, _ = explain("--chapter", "protected", *options)
    assert bool(ESCAPES.search(out)) == coloured
    if coloured:
        _, bare, _ = explain("--chapter", "protected", "--color", "never")
        assert ESCAPES.sub("", out) == bare


def test_on_kvm_or_unicorn(engine_name, explain):
    status, out, _ = explain("--engine", engine_name, "--machine", "pc")
    assert status == 0
    assert ("does not show loads and stores" in out) == (engine_name == "kvm")
    assert "2,564 bytes to 0x3000" in out


def test_without_dma(explain):
    _, out, _ = explain("--machine", "microvm", "--no-dma", "--chapter", "fw_cfg")
    assert "this host has no DMA" in out.replace("\n", " ")
    assert "in 0x514: nobody answers\n" in out
    assert "out 0x510, in 0x511 × 4: fw_cfg: the signature (key 0x0), 4 bytes: 51 45 4d 55\n" in out
    assert "fw_cfg_read_pio (fw_cfg_read.s:" in out


def test_a_machine_whose_host_has_no_tables(explain, tmp_path):
    recording = default_recording(MICROVM_ACPI)
    files = {name: file for name, file in recording.files.items() if name != acpi_loader.LOADER_FILE}
    path = tmp_path / "mine.json"
    path.write_text(recording._replace(files=files).to_json())
    status, out, _ = explain("--machine", "microvm-acpi", "--recording", path, "--chapter", "acpi")
    assert status == 0
    assert "This host has no such file" in out


def test_the_firmware_for_several_machines(explain, tmp_path):
    blob = build(UNIVERSAL)
    (tmp_path / "fw.bin").write_bytes(blob.data)
    (tmp_path / "fw.json").write_text(blob.to_json())
    options = "--firmware", tmp_path / "fw.bin", "--manifest", tmp_path / "fw.json"
    for machine in ("microvm", "q35"):
        status, out, _ = explain("--machine", machine, *options, "--chapter", "chipset")
        assert status == 0
        assert "# Which machine is this?" in out
        assert ("(PCIEXBAR) becomes" in out) == (machine == "q35")


def test_a_custom_stage_and_a_verbose_build(explain, tmp_path):
    stage = make_stage("before-handoff", "mine.s", "# Clobbers: eax\n    mov eax, 42\n    ret\n")
    blob = build(BARE, [stage], verbose=True)
    (tmp_path / "fw.bin").write_bytes(blob.data)
    (tmp_path / "fw.json").write_text(blob.to_json())
    options = "--firmware", tmp_path / "fw.bin", "--manifest", tmp_path / "fw.json"
    status, out, _ = explain(*options)
    assert status == 0
    assert _titles(out)[-6:] == ["stage", "tss", "mtrr", "handoff", "entry", "check"]
    assert "mine.s:2  mov eax, 42\n" in out
    _, out, _ = explain(*options, "--chapter", "flat")
    assert "POST PROTECTED_MODE" in out
    assert "tell (panic.s:16), " in out


def test_a_changed_file_is_told_with_the_comments_beside_its_manifest_alone(explain, tmp_path):
    first = asm_source("flat32.s").splitlines()[0]
    text = asm_source("flat32.s").replace(first, "# Mine alone.").replace("    cld\n", "    nop\n    cld  # here, too\n")
    blob = build(BARE, sources={"flat32.s": text})
    (tmp_path / "fw.bin").write_bytes(blob.data)
    (tmp_path / "fw.json").write_text(blob.to_json())
    options = "--firmware", tmp_path / "fw.bin", "--manifest", tmp_path / "fw.json", "--chapter", "flat"
    _, out, _ = explain(*options)
    ran = out.partition("What ran")[2]
    assert re.search(r"flat32\.s:\d+ +cld$", ran, re.MULTILINE)
    assert first.strip("# .") not in ran  # of pvhboot's own file
    (tmp_path / "flat32.s").write_text(text)
    _, out, _ = explain(*options)
    ran = out.partition("What ran")[2]
    assert "flat32.s: Mine alone" in ran
    assert re.search(r"flat32\.s:\d+ +cld +# here, too$", ran, re.MULTILINE)


def test_a_real_kernel(explain, guest_file):
    status, out, _ = explain(guest_file("vmlinuz-6.1"), "--machine", "q35", "--append", "console=ttyS0")
    assert status == 0
    assert "(pvh_start_xen): " in out
    assert "14 bytes with the 0 at its end, 'console=ttyS0'" in out
    assert "conformance guest" not in out
    assert max(map(len, out.splitlines())) <= WIDTH
