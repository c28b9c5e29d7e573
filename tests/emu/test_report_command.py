"""`pvhboot report`: what it says, what it writes, and its exit status."""

import pytest
from host import kvm_problem
from pvhboot.emu.cli import main
from pvhboot.emu.engines.unicorn_pace import NS_PER_INSTRUCTION
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE
from reports import payload

KIB = 1024


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command; gives its status, what it said, and the page."""

    def report(*arguments):
        path = tmp_path / "boot.html"
        status = main(["report", *map(str, arguments), "-o", str(path)])
        said = capsys.readouterr()
        assert said.err == ""
        return status, said.out.replace(str(path), "boot.html"), path.read_bytes()

    return report


def test_a_line_says_what_was_written(run):
    status, out, page = run("--machine", "microvm", "--until", "handoff")
    steps = len(payload(page.decode())["steps"])
    assert status == 0
    assert out == f"boot.html: {steps} steps, {-(-len(page) // KIB)} KiB; handoff, 27 of 27 clauses met\n"


def test_without_a_kernel_it_runs_to_the_exit_of_the_guest(run, engine_name):
    status, out, page = run("--machine", "bare", "--engine", engine_name)
    assert status == 0
    assert out.endswith("; end: exit: the guest left with 0\n")
    assert payload(page.decode())["beyond"]["console"]


def test_a_firmware_that_fails_is_status_1_and_has_its_page(run, tmp_path):
    text = asm_source("flat32.s").replace("    cld\n", "    ud2\n")
    blob = build(BARE, sources={"flat32.s": text})
    (tmp_path / "bad.bin").write_bytes(blob.data)
    (tmp_path / "bad.json").write_text(blob.to_json())
    status, out, page = run("--firmware", tmp_path / "bad.bin", "--manifest", tmp_path / "bad.json")
    assert status == 1
    assert "the kernel was never entered; end: fault: #UD" in out
    data = payload(page.decode())
    assert data["causes"]
    assert [lines for name, lines, _ in data["files"] if name == "flat32.s"]


def test_an_edited_firmware_is_shown_with_the_files_beside_its_manifest(run, tmp_path):
    text = asm_source("flat32.s").replace("    cld\n", "    nop\n    cld  # mine alone\n")
    blob = build(BARE, sources={"flat32.s": text})
    (tmp_path / "mine.bin").write_bytes(blob.data)
    (tmp_path / "mine.json").write_text(blob.to_json())
    options = "--firmware", tmp_path / "mine.bin", "--manifest", tmp_path / "mine.json"

    def shown():
        return next((lines, whole) for name, lines, whole in payload(run(*options)[2].decode())["files"] if name == "flat32.s")

    lines, whole = shown()
    assert not whole  # pvhboot's own file is another one
    assert not [line for line in lines if "#" in line]
    (tmp_path / "flat32.s").write_text(text)
    assert shown() == ([line.rstrip() for line in text.splitlines()], True)


def test_foreign_firmware_gets_its_page(run, qboot):
    status, out, page = run("--machine", "q35", "--firmware", qboot, "--until", "handoff")
    data = payload(page.decode())
    assert status == 1  # it leaves clauses of the ABI undone
    assert data["handoff"] > 10_000
    assert f"{len(data['steps'])} steps" in out
    assert len(page) < 1000 * KIB


def test_a_boot_of_linux_to_its_banner(run, guest_file):
    arguments = ("--machine", "microvm", "--append", "console=ttyS0 earlyprintk=ttyS0", "--until", "console:Linux version")
    status, _, page = run(guest_file("vmlinuz-6.1"), *arguments)
    data = payload(page.decode())
    assert status == 0
    assert len(page) < 1000 * KIB
    times = {name: ns for name, _, ns, _ in data["marks"]}
    assert list(times) == [
        *("first-instruction", "protected-mode", "handoff", "kernel-64bit", "start_kernel", "console"),
    ]
    executed = times["handoff"] // NS_PER_INSTRUCTION - 1  # the clock counts the kernel's first one, which has begun
    assert dict(data["facts"])["cost"].startswith(f"{executed} instructions ")
    assert 0 < times["handoff"] < times["kernel-64bit"] < times["start_kernel"] < times["console"]
    assert data["beyond"]["clock"]
    assert data["beyond"]["console"][-1][1].endswith("Linux version")
    again = run(guest_file("vmlinuz-6.1"), *arguments)[2]
    assert again == page


def fails(capsys, *arguments) -> str:
    """Runs the command, which must fail with one line; gives it."""
    status = main(["report", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("pvhboot: ")
    assert err.count("\n") == 1
    return err


BAD = {
    "no such kernel": (("/nonexistent",), "No such file"),
    "until": (("--until", "soon"), "handoff, exit or console:TEXT"),
    "the engine counts nothing": (("--engine", "kvm", "--max-instructions", "5"), "cannot count instructions"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_leaves_nothing_behind(capsys, tmp_path, arguments, message):
    if "kvm" in arguments and (problem := kvm_problem()):
        pytest.skip(problem)
    assert message in fails(capsys, *arguments, "-o", tmp_path / "boot.html")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_told_before_the_boot(capsys, tmp_path):
    assert "cannot write" in fails(capsys, "-o", tmp_path / "none" / "boot.html")


def test_the_kernel_is_not_written_over(capsys, tmp_path):
    path = tmp_path / "kernel"
    path.write_bytes(b"kernel")
    assert "read and written" in fails(capsys, path, "-o", path)
    assert path.read_bytes() == b"kernel"
