"""`pvhboot boot --console`: what a terminal, and a pipe, have of it, and what becomes of the terminal whatever happens."""

import errno
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
import tty
from math import inf
from unittest.mock import Mock

import pytest
import tick_guest
from command_line import fails
from pvhboot.emu import console
from pvhboot.emu.arguments import parse
from pvhboot.emu.board import Board
from pvhboot.emu.commands.common import limits_from
from pvhboot.emu.console import HELP_TEXT, Keys
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.devices import UART_MCR, UART_MCR_RTS, UART_RBR
from pvhboot.shim.machines import BARE
from pvhboot.shim.stock import default_blob
from tiny import assembled, kernel_image

SECONDS = 100  # for what should take a moment
PVHBOOT = (sys.executable, "-c", "import sys; from pvhboot.emu.cli import main; sys.exit(main())")
READY = "!"


class Session:
    """`pvhboot boot --console` at a pseudo-terminal."""

    def __init__(self, kernel, engine, *more, by=(), errors=None):
        """`by` is a command line that starts the one that follows; `errors` a file in place of the terminal."""
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        line = (*by, *PVHBOOT, "boot", str(kernel), "--engine", engine, "--console", *more)
        terminal = {"stdin": self.slave, "stdout": self.slave, "stderr": errors or self.slave}
        self.process = subprocess.Popen(line, **terminal, start_new_session=True)
        self.seen = b""

    def type(self, keys):
        os.write(self.master, keys)

    def wait_for(self, text):
        """Reads on until it is there; what came before it."""
        until = time.monotonic() + SECONDS
        while text.encode() not in self.seen:
            over = self.process.poll() is not None  # asked first: what it has said then is all there is
            if select.select([self.master], [], [], 0 if over else 0.1)[0]:
                self.seen += os.read(self.master, 4096)
            else:
                assert not over, self.seen
                assert time.monotonic() < until, self.seen
        before, _, self.seen = self.seen.partition(text.encode())
        return before.decode()

    def end(self):
        """The exit status, with the terminal as it was before."""
        status = self.process.wait(SECONDS)
        self.wait_restored()
        return status

    def wait_restored(self):
        until = time.monotonic() + SECONDS
        while termios.tcgetattr(self.slave) != self.before and time.monotonic() < until:
            time.sleep(0.01)  # after a crash it takes the child that watches a moment
        assert termios.tcgetattr(self.slave) == self.before

    @property
    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def echo(tmp_path):
    path = tmp_path / "echo"
    path.write_bytes(tick_guest.echo_guest())
    return path


@pytest.fixture
def at_terminal(engine_name):
    """Starts a session on each engine, and waits until its guest listens."""
    sessions = []

    def start(kernel, *more, **how):
        sessions.append(Session(kernel, engine_name, *more, **how))
        sessions[-1].wait_for(HELP_TEXT)
        sessions[-1].wait_for(READY)
        return sessions[-1]

    yield start
    for session in sessions:
        session.close()


@pytest.mark.parametrize(
    ("typed", "passed", "told"),
    [
        (b"abc", b"abc", []),
        (b"\x03\x1a\x1c\r", b"\x03\x1a\x1c\r", []),
        (b"a\x01\x01b", b"a\x01b", []),
        (b"a\x01hb\x01?", b"ab", ["help", "help"]),
        (b"a\x01xb", b"a", ["leave"]),
        (b"a\x01X", b"a", ["leave"]),
        (b"a\x01zb", b"ab", []),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_the_keys_that_are_the_consoles(typed, passed, told, at_once):
    seen = []
    keys = Keys(lambda: seen.append("leave"), lambda: seen.append("help"))
    parts = [typed] if at_once else [bytes((key,)) for key in typed]
    got = b""
    for part in parts:
        got += keys.filter(part)
        if "leave" in seen:
            break
    assert (got, seen) == (passed, told)


def test_keys_go_to_the_guest_and_ctrl_a_x_leaves(echo, at_terminal):
    session = at_terminal(echo)
    assert session.is_raw
    session.type(b"hello\x03\x1a")
    session.wait_for("hello\x03\x1a")  # once: the terminal does not echo, and no key is a signal
    session.type(b"\x01h")
    session.wait_for(HELP_TEXT)
    session.type(b"\x01\x01.")
    session.wait_for("\x01.")
    session.type(b"\x01x")
    session.wait_for("27 of 27 clauses of the PVH ABI are met")
    session.wait_for("end: left: Ctrl-A X")
    assert session.end() == 0


def test_ctrl_a_x_leaves_a_guest_that_reads_nothing(tmp_path, at_terminal):
    (tmp_path / "kernel").write_bytes(kernel_image(assembled(HANG)))
    session = at_terminal(tmp_path / "kernel")
    for _ in range(10):
        session.type(b"x" * 1000)
    session.type(b"\x01x")
    session.wait_for("end: left: Ctrl-A X")
    assert session.end() == 0


def test_the_guest_may_leave_too(echo, at_terminal):
    session = at_terminal(echo)
    session.type(b"q")
    session.wait_for("end: exit: the guest left with 0")
    assert session.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_terminal_is_restored_before_a_signal_ends_it(echo, at_terminal, number):
    session = at_terminal(echo)
    session.process.send_signal(number)
    assert session.end() == -number


@pytest.mark.parametrize("ignored", [signal.SIGCHLD, signal.SIGHUP])
def test_what_whoever_starts_it_ignores_is_no_trouble(echo, at_terminal, ignored):
    ignoring = "import os, signal, sys; signal.signal(int(sys.argv[1]), signal.SIG_IGN); os.execv(sys.argv[2], sys.argv[2:])"
    session = at_terminal(echo, by=(sys.executable, "-c", ignoring, str(int(ignored))))
    if ignored == signal.SIGHUP:
        session.process.send_signal(signal.SIGHUP)
    session.type(b"\x01x")
    assert session.end() == 0


def test_without_the_child_that_watches_it_ends_as_ever(echo, at_terminal):
    session = at_terminal(echo)
    with open(f"/proc/{session.process.pid}/task/{session.process.pid}/children") as file:
        os.kill(int(file.read()), signal.SIGKILL)
    session.type(b"\x01x")
    assert session.end() == 0


def test_an_interrupt_as_the_terminal_is_restored_leaves_that_to_the_child(monkeypatch):
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    settings = []

    def interrupted(fd, attributes):
        settings.append(attributes)
        if len(settings) == 2:
            raise KeyboardInterrupt
        termios.tcsetattr(fd, termios.TCSANOW, attributes)

    monkeypatch.setattr(console, "_set", interrupted)
    with pytest.raises(KeyboardInterrupt), console.raw_terminal(slave):
        assert termios.tcgetattr(slave) != before
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_an_interrupt_from_elsewhere_is_told(echo, at_terminal):
    session = at_terminal(echo)
    session.process.send_signal(signal.SIGINT)
    session.wait_for("pvhboot: interrupted")
    assert session.end() == 128 + signal.SIGINT


def test_stopped_it_lends_the_terminal(echo, at_terminal):
    session = at_terminal(echo)
    session.process.send_signal(signal.SIGTSTP)
    session.wait_restored()
    session.process.send_signal(signal.SIGCONT)
    until = time.monotonic() + SECONDS
    while not session.is_raw and time.monotonic() < until:
        time.sleep(0.01)
    session.type(b"z")
    session.wait_for("z")
    session.type(b"\x01x")
    assert session.end() == 0


# A shell with job control: it starts a job in the background, edits a line until that has stopped, has it go on there until it
# has stopped again, and brings it to the foreground. 0 if then the terminal is as the shell has lent it.
SHELL = """
import fcntl, os, signal, subprocess, sys, termios, time, tty
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
lent = termios.tcgetattr(0)
tty.setraw(0)
job = subprocess.Popen(sys.argv[1:], process_group=0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
for _ in range(2):
    os.waitpid(job.pid, os.WUNTRACED)
    os.killpg(job.pid, signal.SIGCONT)
os.waitpid(job.pid, os.WUNTRACED)
termios.tcsetattr(0, termios.TCSANOW, lent)
os.tcsetpgrp(0, job.pid)
os.killpg(job.pid, signal.SIGCONT)
sys.exit(job.wait() or termios.tcgetattr(0) != lent)
"""


def test_in_the_background_it_waits_for_the_terminal(echo, at_terminal):
    session = at_terminal(echo, by=(sys.executable, "-c", SHELL))
    session.type(b"\x01x")
    assert session.end() == 0


def test_as_it_is_continued_another_signal_does_not_keep_the_terminal_from_it(monkeypatch):
    refusals = [termios.error(errno.EINTR, "Interrupted system call"), None]
    monkeypatch.setattr(termios, "tcsetattr", Mock(side_effect=refusals))
    console._set(0, [])
    assert termios.tcsetattr.call_count == 2


TRIPLE_FAULT = "mov dx, 0x3f8\nmov al, 0x21\nout dx, al\nlidt [0x200000]\nud2"
RESET = "mov dx, 0x3f8\nmov al, 0x21\nout dx, al\nmov al, 0xfe\nout 0x64, al"
HANG = "mov dx, 0x3f8\nmov al, 0x21\nout dx, al\nhere:\njmp here"


@pytest.mark.parametrize(
    ("source", "more", "status", "end"),
    [
        (TRIPLE_FAULT, (), 1, "end: fault: "),
        (RESET, (), 0, "end: reset: the guest asked for a reset by the keyboard controller"),
        (HANG, ("--timeout", "0.5"), 1, "end: limit: 0.5 seconds of wall time are over"),
    ],
)
def test_the_terminal_is_restored_when_the_guest_ends(tmp_path, at_terminal, source, more, status, end):
    (tmp_path / "kernel").write_bytes(kernel_image(assembled(source)))
    session = at_terminal(tmp_path / "kernel", *more)
    session.wait_for(end)
    assert session.end() == status


def test_a_terminal_that_goes_away_ends_the_session(echo, at_terminal, tmp_path):
    with open(tmp_path / "errors", "wb") as errors:
        session = at_terminal(echo, errors=errors)
    os.close(session.slave)
    os.close(session.master)
    session.master, session.slave = pty.openpty()
    assert session.process.wait(SECONDS) == 2
    assert (tmp_path / "errors").read_text() == "pvhboot: cannot write the output: Input/output error\n"


def run(kernel, engine, **source):
    line = (*PVHBOOT, "boot", str(kernel), "--engine", engine, "--console", "--timeout", str(SECONDS))
    return subprocess.run(line, **source, capture_output=True, timeout=2 * SECONDS)


def test_a_pipe_is_typed_as_it_is_when_the_guest_listens(echo, engine_name):
    result = run(echo, engine_name, input=b"\x01x is no key here, and there are more than 16: q, never seen")
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"!\x01x is no key here, and there are more than 16: q\n" in result.stdout


def test_a_pipe_with_more_than_is_read_does_not_fill_memory(echo, engine_name):
    with open("/dev/zero", "rb") as endless:
        line = (*PVHBOOT, "boot", str(echo), "--engine", engine_name, "--console", "--timeout", "1")
        result = subprocess.run(line, stdin=endless, capture_output=True, timeout=SECONDS)
    assert result.returncode == 1
    assert b"end: limit" in result.stdout


@pytest.mark.parametrize("at_terminal", [True, False])
def test_4096_bytes_are_kept_of_what_a_guest_does_not_read(at_terminal):
    with Kernel.from_bytes(kernel_image(), "guest") as kernel:
        board = Board(make_plan(BARE, default_blob(BARE).data, kernel, memory=64 << 20))
    reader, writer = pty.openpty() if at_terminal else os.pipe()
    if at_terminal:
        reader, writer = writer, reader
        tty.setraw(reader)
    keyboard = console.Console(board, reader, lambda _data: None)
    for size in (1000, 1000, 3000, 1000):
        os.write(writer, b"x" * size)
        keyboard.poll(0.1)
    assert board.serial.waiting == 4096
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(("typed", "deadline", "told"), [(b"", inf, 0), (b"abc", inf, 1), (b"abc", 1e9, 0)])
def test_that_a_guest_goes_on_when_it_has_taken_all_is_said_once(monkeypatch, capfd, typed, deadline, told):
    monkeypatch.setattr(console, "_PATIENCE", 0)
    with Kernel.from_bytes(kernel_image(), "guest") as kernel:
        board = Board(make_plan(BARE, default_blob(BARE).data, kernel, memory=64 << 20))
    board.deadline = deadline
    reader, writer = os.pipe()
    os.write(writer, typed)
    os.close(writer)
    keyboard = console.Console(board, reader, lambda _data: None)
    for _ in range(4):
        keyboard.poll(0)
    assert capfd.readouterr().err == ""
    board.serial.write(UART_MCR, 1, UART_MCR_RTS)
    for _ in range(5):
        board.serial.read(UART_RBR, 1)
        keyboard.poll(0)
    assert capfd.readouterr().err.count("all input is typed, and the guest goes on") == told
    os.close(reader)


@pytest.mark.parametrize(("cmdline", "told"), [("a=b quiet c", True), ("x=quiet", False)])
def test_what_quiet_means_is_said_at_once(echo, cmdline, told):
    session = Session(echo, "unicorn", "--append", cmdline)
    try:
        assert ("with quiet nothing comes until init starts" in session.wait_for(READY)) == told
    finally:
        session.close()


@pytest.mark.parametrize("how", ["empty", "closed"])
def test_without_input_the_guest_goes_on(tmp_path, engine_name, how):
    (tmp_path / "kernel").write_bytes(tick_guest.tick_guest(20))
    source = {"stdin": subprocess.DEVNULL} if how == "empty" else {"preexec_fn": lambda: os.close(0)}
    result = run(tmp_path / "kernel", engine_name, **source)
    assert b"the guest left with 20" in result.stdout


def test_a_closed_input_is_no_file_that_is_opened_later(echo, engine_name):
    line = (*PVHBOOT, "boot", str(echo), "--engine", engine_name, "--console", "--timeout", "1")
    result = subprocess.run(line, preexec_fn=lambda: os.close(0), capture_output=True, timeout=SECONDS)
    assert b"\n!\n" in result.stdout  # that it listens is all that it prints


@pytest.mark.parametrize("closed", [1, 2])
def test_one_closed_output_does_not_close_the_other(echo, engine_name, closed):
    result = run(echo, engine_name, input=b"q", preexec_fn=lambda: os.close(closed))
    assert (result.returncode, b"end: exit" in result.stdout) == (0, closed != 1)


@pytest.mark.parametrize(
    ("arguments", "seconds"), [((), 120), (("--console",), float("inf")), (("--console", "--timeout", "5"), 5)]
)
def test_a_session_has_no_limit_of_time_but_the_one_that_is_given(arguments, seconds):
    assert limits_from(parse(["boot", *arguments])).seconds == seconds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--json",), "--console and --json do not go together: leave one of them out"),
        (("--gdb",), "--console and --gdb do not go together: leave one of them out"),
        (("--replay-io", "x"), "--console and --replay-io do not go together: leave one of them out"),
        (("--engine", "qemu"), "--console is for the engines unicorn and kvm: QEMU has its own (-serial mon:stdio)"),
    ],
)
def test_what_does_not_go_with_it(capsys, echo, arguments, message):
    assert message in fails(capsys, "boot", echo, "--console", *arguments)
