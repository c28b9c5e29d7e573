"""A `pvhboot bench timeline` that is ended before its time leaves no process and no file behind."""

import os
import signal
import subprocess
import sys

import pytest
from host import kvm_problem
from marked_guest import marked_guest
from processes import comes_true, processes_that_name
from pvhboot.emu.timeline.marks import CONSOLE

_MAIN = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from pvhboot.emu.cli import main;"


@pytest.fixture
def started(tmp_path):
    """Starts a bench of a guest that comes nowhere, and waits until a boot of it runs."""
    bench: list[subprocess.Popen[str]] = []
    (tmp_path / "guest").write_bytes(marked_guest(before="1:  jmp 1b\n"))
    (tmp_path / "tmp").mkdir()

    def start(accelerator, **environment):
        line = [sys.executable, "-c", f"{_MAIN} sys.exit(main(sys.argv[1:]))", "bench", "timeline", tmp_path / "guest"]
        line += ["--accel", accelerator, "--until", CONSOLE, "--runs", "1", "--no-cache"]
        bench.append(
            subprocess.Popen(
                line,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), **environment},
            )
        )
        assert comes_true(lambda: len(processes_that_name(tmp_path)) == 2 or bench[0].poll() is not None)
        assert bench[0].poll() is None, bench[0].communicate()
        return bench[0]

    yield start
    for process in bench:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "status", "words"), [(signal.SIGINT, 130, "pvhboot: interrupted\n"), (signal.SIGTERM, 143, "")]
)
@pytest.mark.usefixtures("plain_qemu")
def test_a_signal_ends_it_and_qemu_and_leaves_no_file(started, number, status, words, tmp_path):
    bench = started("tcg")
    bench.send_signal(number)
    assert bench.communicate(timeout=60) == ("", words)
    assert bench.returncode == status
    assert not any((tmp_path / "tmp").iterdir())
    assert comes_true(lambda: not processes_that_name(tmp_path))


@pytest.mark.parametrize(("number", "leaves"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGKILL, True)])
def test_a_signal_ends_our_own_vmm_too(started, number, leaves, tmp_path):
    """Without a QEMU it is the only one."""
    if problem := kvm_problem():
        pytest.skip(problem)
    bench = started("kvm", PATH=str(tmp_path))
    bench.send_signal(number)
    bench.communicate(timeout=60)
    assert comes_true(lambda: not processes_that_name(tmp_path))
    assert any((tmp_path / "tmp").iterdir()) is leaves
