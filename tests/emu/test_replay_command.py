"""`pvhboot boot --record-io` and `--replay-io`: what they print, write and refuse."""

import json
import re

import pytest
from command_line import fails
from host import qemu_problem
from pvhboot.emu.cli import main


@pytest.fixture
def initrd(tmp_path):
    path = tmp_path / "initrd"
    path.write_bytes(b"initrd" * 2000)
    return str(path)


def test_a_boot_is_recorded_and_replayed_by_the_command(capsys, tmp_path, initrd):
    path = tmp_path / "io.jsonl"
    what = ["--machine", "microvm", "--initrd", initrd]
    recording = ["boot", *what, "--memory", "64M", "--append", "hello there", "--record-io", str(path)]
    assert main(recording) == 0
    size = path.stat().st_size
    assert f"transcript: {path}, 12 accesses to devices, {size} bytes\n" in capsys.readouterr().out
    assert main(["boot", *what, "--replay-io", str(path)]) == 0
    out = capsys.readouterr().out
    assert "on microvm with 64 MiB" in out
    assert "cmdline 'hello there'" in out
    assert out.endswith("end: handoff\nreplay (strict): 12 of the transcript's 12 accesses were made\n")
    assert main(["boot", *what, "--replay-io", str(path), "--json"]) == 0
    replay = json.loads(capsys.readouterr().out)["replay"]
    assert replay == {"order": "strict", "made": 12, "left": 0, "diverged": False, "unanswered": []}
    path.write_text(path.read_text().replace('"0x20100000"', '"0x20100001"', 1))
    assert main(["boot", *what, "--replay-io", str(path)]) == 1
    out = capsys.readouterr().out
    assert (
        "end: diverged: access 2: the firmware writes 0x20100000 (4 bytes) to port 0x518, the transcript has 0x20100001\n"
        in out
    )
    assert re.search(r"at 0x[0-9a-f]+, fw_cfg_read_dma\+0x[0-9a-f]+ \(fw_cfg_read.s:\d+\)\n", out)
    assert main(["boot", *what, "--replay-io", str(path), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["ok"], data["replay"]["diverged"]) == (False, True)


def test_a_replay_that_leaves_something_out_fails(capsys, tmp_path):
    path = tmp_path / "io.jsonl"
    assert main(["boot", "--machine", "microvm", "--record-io", str(path)]) == 0
    head, *lines = path.read_text().splitlines()
    more = json.dumps(json.loads(head) | {"accesses": len(lines) + 1})
    path.write_text("\n".join([more, *lines, lines[0]]))
    capsys.readouterr()
    assert main(["boot", "--machine", "microvm", "--replay-io", str(path)]) == 1
    assert f"not made: access {len(lines) + 1}, which reads 4 bytes from port 0x514\n" in capsys.readouterr().out


MISUSE = {
    "no-file": (["--replay-io", "none"], "none: .*"),
    "order-alone": (["--replay-order", "strict"], "--replay-order is for --replay-io: .*"),
    "qemu": (["--replay-io", "{io}", "--engine", "qemu"], "--replay-io is for the engines unicorn and kvm: .*"),
    "recording": (["--replay-io", "{io}", "--recording", "x"], "--replay-io and --recording: .*"),
    "until": (["--replay-io", "{io}", "--until", "exit"], "--until exit: a transcript ends at the handoff, .*"),
    "machine": (["--replay-io", "{io}"], ".*io.jsonl: a transcript of microvm: give --machine microvm"),
    "memory": (
        ["--replay-io", "{io}", "--machine", "microvm", "--memory", "32M"],
        "the transcript is of a machine with 67108864 bytes of RAM, not 33554432",
    ),
    "append": (
        ["--replay-io", "{io}", "--machine", "microvm", "--append", "other", "--initrd", "{initrd}"],
        "the transcript is of a boot with the command line 'hello', not 'other': give the same --append",
    ),
    "no-dma": (["--replay-io", "{io}", "--machine", "microvm", "--no-dma"], "--replay-io and --no-dma: .*"),
    "foreign": (["--replay-io", "{other}"], ".*other: not a transcript: `pvhboot boot --record-io FILE` writes one"),
    "no-directory": (["--record-io", "/nonexistent/x"], "/nonexistent/x: cannot write: No such file or directory"),
    "initrd-missing": (
        ["--replay-io", "{io}", "--machine", "microvm"],
        "the transcript is of a boot with 1 module, not 0",
    ),
    "initrd-other": (
        ["--replay-io", "{io}", "--machine", "microvm", "--initrd", "{other}"],
        ".*other: is not the module of the transcript, which has 12000 bytes and the SHA-256 [0-9a-f]{{64}}",
    ),
    "kernel-other": (
        ["{guest}", "--replay-io", "{io}", "--machine", "microvm", "--initrd", "{initrd}"],
        "the transcript is of a kernel that is entered at 0x100000, .* is at 0x2[0-9a-f]*: give the same kernel",
    ),
}


@pytest.mark.parametrize(("arguments", "words"), MISUSE.values(), ids=MISUSE.keys())
def test_what_does_not_go_together_is_told(capsys, tmp_path, initrd, arguments, words):
    names = {"io": tmp_path / "io.jsonl", "other": tmp_path / "other", "initrd": initrd, "guest": tmp_path / "guest-reloc-12"}
    names["other"].write_bytes(b"other")
    assert main(["guests", "reloc-12", "-o", str(tmp_path)]) == 0
    recording = ["boot", "--machine", "microvm", "--memory", "64M", "--append", "hello"]
    recording += ["--initrd", initrd, "--record-io", str(names["io"])]
    assert main(recording) == 0
    capsys.readouterr()
    given = [argument.format(**names) for argument in arguments]
    if "{guest}" in arguments:
        given += ["--base", "32M"]
    assert re.fullmatch("pvhboot: " + words.format() + "\n", fails(capsys, "boot", *given))


def test_the_initrd_is_not_overwritten(capsys, initrd):
    assert main(["boot", "--machine", "microvm", "--initrd", initrd, "--record-io", initrd]) == 2
    assert capsys.readouterr().err == f"pvhboot: {initrd}: is to be read and written: name another output\n"


def test_qemus_run_without_a_handoff_has_no_transcript(capsys, tmp_path):
    if problem := qemu_problem():
        pytest.skip(problem)
    rom = tmp_path / "rom"
    rom.write_bytes(b"\xf4" * 65536)
    path = tmp_path / "io.jsonl"
    arguments = ["boot", "--machine", "microvm", "--engine", "qemu", "--firmware", str(rom), "--record-io", str(path)]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"pvhboot: this run has no transcript, as it ended without a handoff \(halt: .*\): .*\n", err)
    assert not path.exists()
