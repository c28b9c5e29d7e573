"""`pvhboot bench timeline`: which rows there are, that they come to the same marks, and what is said of those that cannot be.
That one is ahead of another is asserted of what is counted only."""

import json
import shutil
from contextlib import redirect_stdout
from io import StringIO
from xml.etree import ElementTree

import pytest
from command_line import command, fails
from host import kvm_problem, qemu_problem
from marked_guest import marked_guest
from processes import processes_that_name
from pvhboot.emu.cli import main
from pvhboot.emu.commands import bench as bench_command
from pvhboot.emu.reasons import INTERRUPTED
from pvhboot.emu.report.bench import Bench, bench_json, bench_svg, bench_text
from pvhboot.emu.timeline import firmwares
from pvhboot.emu.timeline import rows as row_maker
from pvhboot.emu.timeline.bench import Result, measure
from pvhboot.emu.timeline.dry_run import LIMITS
from pvhboot.emu.timeline.marks import (
    CONSOLE,
    EXIT,
    FIRST_INSTRUCTION,
    HANDOFF,
    KERNEL_64,
    PROTECTED_MODE,
    START_KERNEL,
    VMM_START,
    Mark,
    Timeline,
)
from pvhboot.emu.timeline.rows import OWN, Row, Subject
from pvhboot.loader.kernel import Kernel
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MIB, Q35
from pvhboot.shim.stock import default_guest

ROWS = [
    "pvhboot + vmlinux",
    "qboot + vmlinux",
    "pvhboot + bzImage",
    "qboot + bzImage",
    "SeaBIOS + bzImage",
    "SeaBIOS + vmlinux",
]
SHORT = ("--runs", 1, "--accel", "tcg", "--until", HANDOFF)


def bench(capsys, *arguments):
    """What `bench timeline` measures."""
    return json.loads(command(capsys, "bench", "timeline", *arguments, "--json"))


def rows_of(data, accelerator="tcg"):
    return {row["label"]: row for row in data["accelerators"][accelerator]["rows"]}


@pytest.fixture
def guest(tmp_path):
    """A kernel that comes to every mark at once."""
    path = tmp_path / "guest"
    path.write_bytes(marked_guest())
    return path


@pytest.fixture(scope="module")
def linux(guest_file):
    """Debian's kernel in its bzImage, on every road to the kernel's 64-bit entry."""
    if problem := qemu_problem():
        pytest.skip(problem)
    kernel, said = guest_file("vmlinuz-6.1"), StringIO()
    with redirect_stdout(said):
        status = main(["bench", "timeline", str(kernel), "--runs", "1", "--accel", "tcg", "--until", KERNEL_64, "--json"])
    assert status == 0
    data = json.loads(said.getvalue())
    if problems := [row["reason"] for row in rows_of(data).values() if row["reason"].startswith("QEMU has no")]:
        pytest.skip(problems[0])
    return data


def test_every_row_of_the_table_is_there_and_comes_to_its_end(linux):
    rows = rows_of(linux)
    assert list(rows) == ROWS
    for row in rows.values():
        assert row["reason"] == ""
        (timeline,) = row["timelines"]
        names = [mark["name"] for mark in timeline["marks"]]
        assert [name for name in names if name != CONSOLE] == [
            VMM_START,
            FIRST_INSTRUCTION,
            PROTECTED_MODE,
            HANDOFF,
            KERNEL_64,
        ]
        assert row["firmware"]["runs"] == row["marks"][KERNEL_64]["runs"] == 1
    assert min(row["ratio"] for row in rows.values()) == 1


def test_all_that_is_not_firmware_or_kernel_is_the_same(linux):
    assert (linux["machine"], linux["memory"], linux["until"]) == ("q35", 512 * MIB, KERNEL_64)
    assert linux["cmdline"] == "console=ttyS0 earlyprintk=ttyS0 nokaslr"
    assert {row["timelines"][0]["engine"] for row in rows_of(linux).values()} == {"qemu tcg"}


def test_a_firmware_of_ours_needs_less_than_qboot(linux):
    """By what repeats exactly."""
    ours, qboot = (rows_of(linux)[f"{name} + vmlinux"]["counts"] for name in ("pvhboot", "qboot"))
    assert 5 * ours["instructions"] < qboot["instructions"]
    assert 5 * ours["device_accesses"] < qboot["device_accesses"]
    assert ours["rom_bytes_not_zero"] < qboot["rom_bytes_not_zero"]


@pytest.mark.parametrize("machine", ["microvm", "microvm-acpi", "pc"])
@pytest.mark.usefixtures("plain_qemu", "qboot")
def test_other_machines(machine, guest, capsys):
    rows = rows_of(bench(capsys, guest, *SHORT, "--machine", machine))
    booted = {label for label, row in rows.items() if row["timelines"]}
    assert booted >= {"pvhboot + vmlinux", "qboot + vmlinux"}
    assert all(row["marks"].keys() >= {PROTECTED_MODE, HANDOFF} for row in rows.values() if row["timelines"])


@pytest.mark.usefixtures("plain_qemu")
def test_our_own_vmm_counts_from_the_start_of_its_process(guest, monkeypatch, capsys):
    """Without the others, which take their time on a KVM in software."""
    monkeypatch.setattr(firmwares, "_data_directories", lambda _program: [])
    if problem := kvm_problem():
        pytest.skip(problem)
    row = rows_of(bench(capsys, guest, "--runs", 1, "--accel", "kvm", "--until", EXIT), "kvm")[OWN]
    names = [mark["name"] for mark in row["timelines"][0]["marks"]]
    assert names[:4] == [VMM_START, FIRST_INSTRUCTION, PROTECTED_MODE, HANDOFF]
    assert names[-1] == EXIT
    assert row["counts"]["device_accesses"] == 0


def test_our_own_vmm_boots_the_same_and_without_a_cache_if_told_so(guest, monkeypatch, tmp_path, capsys):
    """Its process is told by a command line, where a word of the kernel's may look like an option."""
    if problem := kvm_problem():
        pytest.skip(problem)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = (guest, "--runs", 1, "--accel", "kvm", "--until", EXIT, "--append=--x y", "--no-cache")
    row = rows_of(bench(capsys, *arguments), "kvm")[OWN]
    assert (row["reason"], len(row["timelines"])) == ("", 1)
    assert not (tmp_path / "cache").exists()


# What cannot be


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import time; time.sleep(1000)", "it has not ended within 2 seconds"),  # it has a limit, which it might not keep
        ("raise ValueError('boom')", "ValueError: boom"),
        ("import sys; sys.exit('pvhboot: no')", "no"),
        ("import sys; sys.exit(3)", "it has ended with status 3"),
    ],
)
def test_our_own_vmm_that_tells_nothing_is_given_up(code, reason, guest, monkeypatch, tmp_path):
    if problem := kvm_problem():
        pytest.skip(problem)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(row_maker, "_COMMAND", code)
    monkeypatch.setattr(row_maker, "patience", lambda _seconds: 2 - LIMITS.seconds)
    said = StringIO()
    with redirect_stdout(said):
        assert main(["bench", "timeline", str(guest), "--accel", "kvm", "--json"]) == 1
    assert rows_of(json.loads(said.getvalue()), "kvm")[OWN]["reason"] == reason
    assert not processes_that_name(guest)


@pytest.mark.usefixtures("plain_qemu")
def test_without_a_bzimage_its_rows_say_so(guest, capsys):
    rows = rows_of(bench(capsys, guest, *SHORT))
    assert list(rows) == ROWS
    for label, row in rows.items():
        if label.endswith("bzImage"):
            assert (row["reason"], row["timelines"]) == ("no bzImage: name a vmlinuz as KERNEL", [])


@pytest.mark.usefixtures("plain_qemu")
def test_a_firmware_that_qemu_does_not_have(guest, monkeypatch, capsys):
    monkeypatch.setattr(firmwares, "_data_directories", lambda _program: ["/nowhere"])
    rows = rows_of(bench(capsys, guest, *SHORT))
    assert rows["qboot + vmlinux"]["reason"] == "QEMU has no qboot.rom of qboot's: name one with --qboot"
    assert rows["SeaBIOS + vmlinux"]["reason"] == "QEMU has no bios-256k.bin of SeaBIOS's: name one with --seabios"
    assert rows["pvhboot + vmlinux"]["timelines"]


@pytest.mark.usefixtures("plain_qemu", "qboot")
def test_a_firmware_of_that_name_that_is_another_is_passed_over(tmp_path, qboot, monkeypatch):
    """Debian's QEMU has qboot under the name of SeaBIOS for microvm, and SeaBIOS itself elsewhere."""
    shutil.copy(qboot, tmp_path / "bios-256k.bin")
    monkeypatch.setattr(firmwares, "_data_directories", lambda _program: [str(tmp_path)])
    assert firmwares.seabios(None, "qemu", Q35).path is None


def test_a_host_without_qemu_or_kvm_boots_nothing(guest, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bench_command, "KVM_DEVICE", "/dev/there-is-none")
    assert main(["bench", "timeline", str(guest), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert rows_of(data, "kvm")[OWN]["reason"] == "/dev/there-is-none: No such file or directory"
    reasons = {row["reason"] for row in rows_of(data).values()}
    assert "no qemu-system-x86_64 on the PATH: install it (qemu-system-x86)" in reasons
    assert not any(row["timelines"] for group in data["accelerators"] for row in rows_of(data, group).values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "0"], "--runs 0: give 1 or more"),
        (["--timeout", "0"], "--timeout 0.0: give a number above 0"),
        (["--timeout", "nan"], "--timeout nan: give a number above 0"),
        (["--until", "handof"], "cannot read --until 'handof': write handoff, "),
        (["--vmlinux", "guest"], "--vmlinux is what is in a bzImage, and guest is none: name it as KERNEL alone"),
        (["--qboot", "guest"], "guest: "),
        (["--qboot", "none"], "none: cannot "),
        (["--initrd", "none"], "none: the module cannot be opened: No such file or directory"),
        (["--memory", "much"], "cannot read the memory size 'much'"),
        (["-o", "guest"], "guest: is to be read and written: name another output"),
        (["-o", "no/where.svg"], "no/where.svg: cannot write: No such file or directory"),
    ],
)
def test_bad_input(arguments, message, guest, monkeypatch, capsys):
    monkeypatch.chdir(guest.parent)
    assert message in fails(capsys, "bench", "timeline", "guest", "--accel", "tcg", *arguments)


def test_a_kernel_that_is_none(tmp_path, capsys):
    path = tmp_path / "text"
    path.write_text("a text")
    assert str(path) in fails(capsys, "bench", "timeline", path)


# How it is measured


def timeline(label="it", end="", **marks):
    return Timeline(label, "qemu tcg", tuple(Mark(name.replace("_64", "-64bit"), ns) for name, ns in marks.items()), {}, end)


def test_the_rows_take_turns_and_one_that_does_not_arrive_is_left_out():
    taken = []

    def row(label, **marks):
        def take():
            taken.append(label)
            return timeline(label, "it stopped", **marks)

        return Row(label, take)

    def broken():
        taken.append("c")
        raise BootError("QEMU does not start")

    told = []
    rows = [
        row("a", handoff=5),
        row("b", start_kernel=3),
        Row("c", broken),
        Row("d", None, reason="not here"),
        row("e", handoff=6),
    ]
    results = measure(rows, HANDOFF, 3, lambda: told.append(None))
    assert sorted(taken) == ["a", "a", "a", "b", "c", "e", "e", "e"]
    assert sorted(taken[:4]) == ["a", "b", "c", "e"]
    assert sorted(taken[4:6]) == sorted(taken[6:]) == ["a", "e"]
    assert len(told) == 3 * len(rows)
    assert [(len(result.timelines), result.reason) for result in results] == [
        (3, ""),
        (1, "did not come to handoff in run 1: it stopped"),
        (0, "QEMU does not start"),
        (0, "not here"),
        (3, ""),
    ]


def test_ctrl_c_ends_the_bench_and_not_only_a_boot():
    with pytest.raises(KeyboardInterrupt):
        measure([Row("a", lambda: timeline("a", INTERRUPTED))], HANDOFF, 3, lambda: None)


def results_of(*rows):
    """Each a label and the milliseconds of its marks, run by run."""
    names = {"first": FIRST_INSTRUCTION, "handoff": HANDOFF, "start": START_KERNEL}
    results = []
    for label, *runs in rows:
        taken = [
            Timeline(label, "qemu tcg", tuple(Mark(names[name], round(ms * 1e6)) for name, ms in run.items()), {})
            for run in runs
        ]
        results.append(Result(label, tuple(taken), {}, "" if runs else "not here"))
    return results


def made_up():
    counts = {"instructions": 12, "device_accesses": 3, "rom_bytes_not_zero": 4567}
    fast, slow, none = results_of(
        ("fast", {"first": 60, "handoff": 62.5, "start": 80}, {"first": 50, "handoff": 53, "start": 1070}, {"first": 61}),
        ("slower", {"first": 70, "handoff": 170.5, "start": 1740}),
        ("none",),
    )
    subject = Subject(
        Q35, 64 * MIB, "a line", Kernel.from_bytes(default_guest(64), "k"), "k", None, None, (), START_KERNEL, 9.0, True
    )
    return Bench("k", subject, 3, {"tcg": [fast._replace(counts=counts), slow, none]})


def test_the_table():
    """Medians over the runs that came there, the firmware's own time, the spread at the end, and the ratio to the best."""
    lines = bench_text(made_up()).splitlines()
    assert lines[0] == "k on q35 with 64 MiB, to start_kernel: a line"
    assert lines[3:] == [
        "tcg: milliseconds since the start of the process, medians of 3",
        "        reset-handoff  first  handoff  start_kernel  least-most  ratio",
        "fast             2.75   60.0     57.8         575.0   80.0-1070   1.00",
        "slower          100.5   70.0    170.5          1740   1740-1740   3.03",
        "none: not here",
        "",
        "counted, up to the handoff",
        "      instructions  device accesses  ROM bytes not zero",
        "fast            12                3                4567",
    ]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("a", 1, 3, 4), ("b", 2, 2, 9)], "a ~ b"),
        ([("a", 1, 2, 3), ("b", 3, 4, 5)], ""),
        ([("a", 1, 1, 9), ("b", 7, 8, 9)], ""),  # a was slow once
        ([("a", 1, 4, 9), ("b", 2, 4, 4), ("c", 2, 4, 8), ("d", 20, 29, 30), ("e", 28, 30)], "a ~ b; a ~ c; b ~ c; d ~ e"),
        ([("a", 1), ("b", 1)], ""),  # a single run has no spread
    ],
)
def test_rows_that_nobody_can_tell_apart(rows, told):
    results = results_of(*((label, *({"start": ms} for ms in runs)) for label, *runs in rows))
    text = bench_text(made_up()._replace(results={"tcg": results}))
    lines = [line for line in text.splitlines() if line.startswith("rows within noise")]
    assert lines == ([f"rows within noise: {told}; the counts decide"] if told else [])


def test_json_has_every_run():
    row = bench_json(made_up())["accelerators"]["tcg"]["rows"][0]
    assert row["marks"][START_KERNEL] == {"median": 575_000_000, "least": 80_000_000, "most": 1_070_000_000, "runs": 2}
    assert row["firmware"] == {"median": 2_750_000, "least": 2_500_000, "most": 3_000_000, "runs": 2}
    assert (row["ratio"], len(row["timelines"])) == (1.0, 3)
    assert bench_json(made_up())["accelerators"]["tcg"]["rows"][2]["ratio"] is None


def test_the_picture_has_a_bar_for_each_row_that_was_booted():
    picture = bench_svg(made_up())
    root = ElementTree.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "fast, tcg" in picture
    assert "slower, tcg" in picture
    assert "none, tcg" not in picture


@pytest.mark.usefixtures("plain_qemu")
def test_text_and_picture_of_a_real_one(guest, tmp_path, capsys):
    output = tmp_path / "bench.svg"
    text = command(capsys, "bench", "timeline", guest, "--runs", 2, "--accel", "tcg", "--machine", "microvm", "-o", output)
    assert text.startswith(f"{guest} on microvm with 512 MiB, to console:Linux version: ")
    assert "pvhboot + vmlinux  " in text
    assert text.endswith(f"\n{output}: written\n")
    assert "pvhboot + vmlinux, tcg" in output.read_text()


@pytest.mark.usefixtures("plain_qemu")
def test_some_rows(guest, capsys):
    """Of KVM there is none that was asked for, but for its own."""
    line = [guest, "--runs", 1, "--until", HANDOFF, "--accel", "tcg"]
    assert list(rows_of(bench(capsys, *line, "--only", "pvhboot + v", "--only", "SEABIOS"))) == [ROWS[0], *ROWS[4:]]
    (message,) = fails(capsys, "bench", "timeline", *line, "--only", "own VMM").splitlines()
    assert message.endswith(f"--only own VMM: no row has that in its name; there is: {'; '.join(ROWS)}")


@pytest.mark.usefixtures("plain_qemu")
def test_an_accelerator_without_a_row_is_left_out(guest, monkeypatch, capsys):
    monkeypatch.setattr(bench_command, "KVM_DEVICE", "/dev/there-is-none")
    assert main(["bench", "timeline", str(guest), "--only", "own VMM", "--json"]) == 1
    assert list(json.loads(capsys.readouterr().out)["accelerators"]) == ["kvm"]


def test_what_a_bench_does_not_measure(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "vmlinuz"])
    assert "'vmlinuz' cannot be measured: write pvhboot bench timeline KERNEL" in capsys.readouterr().err
