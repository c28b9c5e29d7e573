"""What a boot costs, as --stats tells it: phases in their order, and counts that are exact where they can be."""

import json
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import command
from host import qemu_problem
from pvhboot.emu import stats as stats_module
from pvhboot.emu.board import Board
from pvhboot.emu.bus import IN, OUT, READ, WRITE
from pvhboot.emu.cli import main
from pvhboot.emu.engines.base import Limits, Run, Stop, Until
from pvhboot.emu.reasons import HANDOFF
from pvhboot.emu.report.stats import stats_text, stats_to_json
from pvhboot.emu.session import Outcome, boot, get_engine
from pvhboot.emu.stats import Faults, Stats, process_start_ns
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.machines import BARE, MIB
from pvhboot.shim.stock import GUEST_BITS, default_blob, default_guest

OWN = ["interpreter", "imports", "blob", "kernel", "plan", "place", "engine", "firmware", "check", "guest"]


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    """The stats of a boot that succeeds."""
    stats: dict[str, object] = json.loads(command(capsys, "boot", *arguments, "--stats", "--json"))["stats"]
    return stats


# The phases.


def test_the_phases_of_a_boot(capsys: pytest.CaptureFixture[str], engine_name: str) -> None:
    before = time.monotonic_ns()
    stats = told(capsys, "--engine", engine_name)
    after = time.monotonic_ns()
    phases = stats["phases_ns"]
    assert list(phases) == OWN
    assert all(ns >= 0 for ns in phases.values())
    assert stats["to_handoff_ns"] == sum(phases[phase] for phase in OWN[:-2])
    assert before < stats["handoff_monotonic_ns"] < after
    assert stats["handoff_monotonic_ns"] + phases["check"] + phases["guest"] < after


def test_the_phases_under_qemu(capsys: pytest.CaptureFixture[str]) -> None:
    if problem := qemu_problem():
        pytest.skip(problem)
    stats = told(capsys, "--engine", "qemu")
    assert list(stats["phases_ns"]) == [phase for phase in OWN if phase not in ("place", "engine")]  # which are QEMU's
    assert stats["memory"] is None


def test_without_a_handoff_none_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rom = tmp_path / "rom"
    rom.write_bytes(bytes(0xFFF0) + b"\xfa\xf4" + bytes(14))  # cli; hlt
    assert main(["boot", "--firmware", str(rom), "--stats", "--json"]) == 1
    stats = json.loads(capsys.readouterr().out)["stats"]
    assert list(stats["phases_ns"]) == OWN[:-2]
    assert stats["to_handoff_ns"] is stats["handoff_monotonic_ns"] is None
    assert main(["boot", "--firmware", str(rom), "--stats"]) == 1
    assert "to the handoff:" not in capsys.readouterr().out


def test_a_boot_by_the_api_begins_where_its_caller_does() -> None:
    stats = Stats()
    with Kernel.from_bytes(default_guest(GUEST_BITS[0]), "guest") as kernel:
        stats.kernel_opened(None)
        blob = default_blob(BARE)
        plan = make_plan(BARE, blob.data, kernel, memory=64 * MIB)
        outcome = boot(plan, blob, get_engine("unicorn"), Until(HANDOFF), Limits(), stats=stats)
    assert outcome.ok
    assert list(stats.phases) == ["kernel", "place", "engine", "firmware", "check", "guest"]


def test_a_phase_can_have_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100, 103, 110, 111])
    monkeypatch.setattr(stats_module.time, "monotonic_ns", lambda: next(clock))
    stats = Stats()
    for phase in ("imports", "blob", "imports"):
        stats.mark(phase)
    stats.mark("kernel", 200)
    assert stats.phases == {"imports": 4, "blob": 7, "kernel": 89}


STARTED = "from pvhboot.emu.stats import process_start_ns; print(process_start_ns())"


@pytest.mark.parametrize("waits", ["", "import time; time.sleep(0.2); ", "sum(range(10**6)); "])
def test_when_the_process_was_started(waits: str) -> None:
    """Known to a tick of the kernel's, whatever it has done since; the two clocks are read one after the other."""
    tick = 10**9 // os.sysconf("SC_CLK_TCK")
    before = time.monotonic_ns()
    out = subprocess.run([sys.executable, "-c", waits + STARTED], capture_output=True, text=True, check=True).stdout
    assert before - 2 * tick < int(out) < time.monotonic_ns()


@pytest.mark.parametrize(
    ("busy", "waited", "age", "start"),
    [
        (30, 5, 37, 35),  # within the tick: computed, and waited for a CPU
        (30, 5, 90, 80),  # it has slept, too: as late as the tick allows
        (30, 50, 37, 37),  # several threads have computed: as early as the tick allows
        (30, None, 37, 30),  # no such file
    ],
)
def test_how_the_start_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, busy: int, waited: int | None, age: int, start: int
) -> None:
    """All in milliseconds, with a clock that has ticks of 10."""
    fields = ["0"] * 50
    fields[19] = "100"
    files = {"/proc/self/stat": f"1 (a) b) {' '.join(fields)}", "/proc/self/schedstat": f"0 {(waited or 0) * 10**6} 0"}
    for name, text in files.items():
        (tmp_path / name.rpartition("/")[2]).write_text(text)
    if waited is None:
        (tmp_path / "schedstat").unlink()
    monkeypatch.setattr(stats_module, "open", lambda name, mode: (tmp_path / name.rpartition("/")[2]).open(mode), raising=False)
    monkeypatch.setattr(stats_module.os, "sysconf", lambda _name: 100)
    monkeypatch.setattr(stats_module.time, "process_time_ns", lambda: busy * 10**6)
    monkeypatch.setattr(stats_module.time, "monotonic_ns", lambda: 5000 * 10**6)
    monkeypatch.setattr(stats_module.time, "clock_gettime_ns", lambda _clock: (1000 + age) * 10**6)
    assert process_start_ns() == (5000 - start) * 10**6


# What is counted.


def test_the_guest_is_copied_to_the_byte(capsys: pytest.CaptureFixture[str], engine_name: str) -> None:
    with Kernel.from_bytes(default_guest(GUEST_BITS[0]), "guest") as kernel:
        size = sum(segment.filesz for segment in kernel.segments)
    stats = told(capsys, "--engine", engine_name)
    assert stats["memory"] == {"copied": size, "mapped": 0, "mappings": 0}


@pytest.mark.parametrize("machine", ["bare", "microvm"])
def test_kernel_and_initrd_are_mapped(
    capsys: pytest.CaptureFixture[str], guest_file, tmp_path: Path, machine: str, engine_name: str
) -> None:
    path, initrd = guest_file("vmlinux-6.1"), tmp_path / "initrd"
    initrd.write_bytes(bytes(3 << 20) + b"end")
    with Kernel.open(path) as kernel:
        sizes = [segment.filesz for segment in kernel.segments]
    stats = told(capsys, path, "--engine", engine_name, "--machine", machine, "--initrd", initrd)
    memory = stats["memory"]
    assert memory["copied"] + memory["mapped"] == sum(sizes) + initrd.stat().st_size
    assert memory["copied"] < path.stat().st_size / 1000
    assert memory["mappings"] == len(sizes) + 1


def test_a_vmlinuz_is_mapped_like_its_vmlinux(
    capsys: pytest.CaptureFixture[str], guest_file, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names, cached, memory = ("vmlinux-6.1", "vmlinuz-6.1", "vmlinux-6.1", "vmlinuz-6.1"), [], []
    directory = str(tmp_path / "pvhboot" / "kernels")
    for name in names:
        stats = told(capsys, guest_file(name))
        cached.append(stats["kernel_cached"])
        memory.append(stats["memory"])
        assert stats["cache_directory"] == directory
    assert cached == [False, False, True, True]
    assert memory == [memory[0]] * 4
    stats = told(capsys, guest_file("vmlinuz-6.1"), "--no-cache")
    assert (stats["kernel_cached"], stats["cache_directory"], stats["memory"]["mapped"]) == (False, None, 0)


def test_what_the_engine_has_counted_is_there_too(capsys: pytest.CaptureFixture[str], engine_name: str) -> None:
    outcome = json.loads(command(capsys, "boot", "--engine", engine_name, "--stats", "--json"))
    assert outcome["stats"]["counts"] == outcome["counts"]["end"]


def test_page_faults_are_those_since_it_was_made() -> None:
    stats = Stats()
    with mmap.mmap(-1, 1000 * mmap.PAGESIZE) as memory:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory[:] = b"x" * len(memory)
    stats.ended()
    assert stats.faults.minor >= 1000
    assert stats.peak is not None
    assert stats.peak > 1000 * mmap.PAGESIZE


def test_the_peak_is_this_programs_and_not_that_of_the_one_that_started_it() -> None:
    code = "from pvhboot.emu.stats import Stats; stats = Stats(); stats.ended(); print(stats.peak)"
    ballast = b"x" * (256 * MIB)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 0 < int(out) < len(ballast)


# How it is shown.


@pytest.fixture
def made_up() -> tuple[Stats, Outcome]:
    with Kernel.from_bytes(default_guest(GUEST_BITS[0]), "guest") as kernel:
        blob = default_blob(BARE)
        plan = make_plan(BARE, blob.data, kernel, memory=64 * MIB)
        board = Board(plan)
        memory = board.memory
    stats = Stats()
    stats.phases = {"kernel": 1_234_567, "engine": 20_000_000, "firmware": 765_433, "check": 5_000}
    stats.handoff_ns, stats.memory = 7, memory
    stats.cached, stats.cache_directory = True, "/home/me/kernels"
    stats.faults, stats.peak = Faults(1234, 5), 1 << 24
    run = Run(Stop("handoff", "", 0), {}, {"instructions": 77, "executed": 99, "in": 1, "kvm_exits_io": 12})
    return stats, Outcome(plan, blob, "unicorn", run, None, None, (), True, b"", b"", (), None, None)


def test_the_table(made_up: tuple[Stats, Outcome]) -> None:
    assert stats_text(*made_up).splitlines() == [
        "what it took:",
        "  kernel (cached)   1.23 ms",
        "  engine           20.00 ms",
        "  firmware          0.77 ms",
        "  check             0.01 ms",
        "from the first of them to the handoff: 22.00 ms",
        "the kernel came out of the cache, /home/me/kernels: --no-cache goes without",
        "counted:",
        "  instructions             77",
        "  instructions, in all     99",
        "  port reads                1",
        "  kvm exits io             12",
        "  bytes copied          10240",
        "  bytes mapped              0",
        "  mappings of files         0",
        "of this process, to the end of the run:",
        "  page faults, minor       1234",
        "  page faults, major          5",
        "  peak resident bytes  16777216",
    ]


def test_instructions_are_said_to_be_those_to_the_handoff_if_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Of what the guest executes from there on none is counted."""
    assert "  instructions, to the handoff  " in command(capsys, "boot", "--stats")


def test_the_docs_have_every_name(made_up: tuple[Stats, Outcome]) -> None:
    table = (Path(__file__).parent.parent.parent / "docs" / "speed.md").read_text()
    data = stats_to_json(*made_up)
    counts = [
        f"counts.{name}" for name in (*data.pop("counts"), IN, OUT, READ, WRITE, "exceptions", "interrupts", "kvm_ioctls")
    ]
    inner = [f"{name}.{key}" for name in ("memory", "page_faults") for key in data.pop(name)]
    assert not [name for name in (*data, *inner, *counts) if f"`{name}`" not in table]


def test_what_is_not_known_is_not_shown(made_up: tuple[Stats, Outcome]) -> None:
    stats, outcome = made_up
    stats.memory = stats.peak = stats.handoff_ns = None
    stats.cached = False
    text = stats_text(stats, outcome)
    assert not [word for word in ("bytes", "handoff", "mappings", "cache") if word in text]
    data = stats_to_json(stats, outcome)
    assert (data["memory"], data["peak_resident"], data["to_handoff_ns"]) == (None, None, None)


def test_the_table_is_behind_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    without, out = command(capsys, "boot"), command(capsys, "boot", "--stats")
    assert out.startswith(without + "what it took:\n")


def test_it_costs_nothing_unless_it_is_asked_for() -> None:
    code = (
        "import sys; from pvhboot.emu.cli import main; main(['boot']);"
        "print('pvhboot.emu.stats' in sys.modules, 'resource' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.endswith("\nFalse False\n")
