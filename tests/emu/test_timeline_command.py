"""`pvhboot timeline`: what it says and writes, on which engines, and what it refuses."""

import json
from xml.etree import ElementTree

import pytest
from command_line import command, fails
from host import kvm_problem
from marked_guest import ENTRY, marked_guest
from pvhboot.emu.cli import main
from pvhboot.emu.timeline.goal import SILENT
from pvhboot.emu.timeline.marks import (
    CONSOLE,
    EXIT,
    FIRST_INSTRUCTION,
    HANDOFF,
    INIT,
    KERNEL_64,
    PROTECTED_MODE,
    START_KERNEL,
    VMM_START,
)

FIRMWARE = [VMM_START, FIRST_INSTRUCTION, PROTECTED_MODE, HANDOFF]
HALT = "    cli\n    hlt\n"


@pytest.fixture
def marked(tmp_path):
    """Writes a marked guest; its path."""

    def write(**how):
        path = tmp_path / "marked"
        path.write_bytes(marked_guest(**how))
        return path

    return write


def names(one):
    return [mark["name"] for mark in one["marks"]]


def test_the_text(marked, capsys):
    kernel = marked(before=HALT)
    assert main(["timeline", str(kernel), "--until", CONSOLE, "--append", "console=ttyS0"]) == 1
    subject, label, head, *rows, end, why, counts = capsys.readouterr().out.splitlines()
    assert subject.startswith(f"{kernel} (ELF64, entry {ENTRY:#x}) on bare with 512 MiB, firmware ")
    assert label == "pvhboot on unicorn"
    assert head.split() == ["ms", "step"]
    assert [row.split()[0] for row in rows] == [*FIRMWARE, KERNEL_64, START_KERNEL, CONSOLE]
    assert rows[-1].split()[1:] == ["-", "-", "not", "reached"]
    assert end.startswith("end: halt")
    assert why == "why: see `pvhboot boot` with the same options and --until exit"
    assert counts.startswith("counts: rom_bytes 65536, instructions 136, device_accesses 0, ")


def test_the_picture(marked, tmp_path, capsys):
    picture = tmp_path / "boot.svg"
    said = command(capsys, "timeline", marked(), "-o", picture)
    assert said.endswith(f"\n{picture}: written\n")
    root = ElementTree.parse(picture).getroot()
    phases = [rect.get("data-phase") for rect in root.iter() if rect.get("data-phase")]
    assert phases == [*FIRMWARE[1:], KERNEL_64, START_KERNEL]


def test_several_engines_in_turn(tmp_path, capsys):
    """One table, one JSON, one picture. What is for QEMU alone is kept from the other."""
    if problem := kvm_problem():
        pytest.skip(problem)
    picture = tmp_path / "boots.svg"
    line = ["timeline", "--engine", "kvm", "--engine", "unicorn", "--engine", "kvm", "-o", picture]
    data = json.loads(command(capsys, *line, "--json"))
    assert [one["engine"] for one in data["timelines"]] == ["kvm", "unicorn"]
    for one in data["timelines"]:
        assert names(one) == [*FIRMWARE, CONSOLE, EXIT]
    assert picture.read_text().count("<title>pvhboot on ") == 2
    text = command(capsys, *line)
    assert [row for row in text.splitlines() if row.startswith("pvhboot on ")] == ["pvhboot on kvm", "pvhboot on unicorn"]


@pytest.mark.usefixtures("plain_qemu")
def test_what_is_for_qemu_is_kept_from_another_engine(capsys):
    line = ["timeline", "--machine", "q35", "--engine", "unicorn", "--engine", "qemu", "--accel", "tcg", "--until", HANDOFF]
    data = json.loads(command(capsys, *line, "--json"))
    assert [(one["label"], names(one)) for one in data["timelines"]] == [
        ("pvhboot on unicorn", FIRMWARE),
        ("pvhboot on qemu tcg", FIRMWARE),
    ]


@pytest.mark.parametrize(
    ("how", "arguments", "expected"),
    [
        ({}, ["--until", "console:version"], f"--until console:version may never be reached: {SILENT}"),
        ({}, ["--until", INIT, "--append", "console=ttyS0"], ""),
        ({}, ["--until", START_KERNEL], ""),
        ({"symbols": False}, ["--until", CONSOLE], ""),  # no Linux, as far as it can be seen
    ],
)
def test_a_console_that_nobody_asked_for_is_told_of_at_once(how, arguments, expected, marked, capsys):
    assert main(["timeline", str(marked(**how)), *arguments]) == 0
    assert capsys.readouterr().err == (f"pvhboot: {expected}\n" if expected else "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--until", "soon"], "cannot read --until 'soon': write handoff, kernel-64bit, start_kernel, console, init, exit"),
        (["--until", "console:"], "cannot read --until 'console:'"),
        (["--until", "exit_point_"], "exit_point_N or console:TEXT"),
        (["--timeout", "0"], "--timeout 0.0: give a number above 0"),
        (["/nonexistent"], "/nonexistent: cannot be opened"),
        (["-o", "/nonexistent/x.svg"], "/nonexistent/x.svg: cannot write"),
        (["--engine", "kvm", "--accel", "kvm"], "an accelerator is for the engine qemu, not for kvm"),
        (["--manifest", "x.json"], "--manifest is about the ROM of --firmware"),
    ],
)
def test_bad_input(arguments, words, capsys):
    assert words in fails(capsys, "timeline", *arguments)


@pytest.mark.parametrize("limit", ["--max-exits", "--max-instructions"])
def test_qemu_counts_nothing(limit, plain_qemu, capsys):  # noqa: ARG001
    assert "counts neither instructions nor accesses" in fails(capsys, "timeline", "--engine", "qemu", limit, "5")


def test_the_kernel_is_not_written_over(marked, capsys):
    kernel = marked()
    before = kernel.read_bytes()
    assert "is to be read and written" in fails(capsys, "timeline", kernel, "-o", kernel)
    assert kernel.read_bytes() == before
