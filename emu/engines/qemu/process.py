"""A QEMU process with its channels, ended when its `with` is, whatever happens in it."""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType, TracebackType
from typing import IO, Final, NoReturn, Self

from pvhboot.shim.errors import BootError

from .command import LOG_FILE, PIPES, PROGRAM, SOCKETS, find_program

# What gives the command line: of QEMU's path, a directory for its files, and its ends of the channels, by name.
LineMaker = Callable[[str, str, Mapping[str, int]], list[str]]

DAEMONIZE: Final = "-daemonize"  # an argument that leaves nobody to end the process

_GRACE: Final = 5.0  # seconds that a QEMU which has closed its channels gets to end
_PATIENCE: Final = 5.0  # seconds beyond the limit of time that QEMU gets to answer
_BRIEF: Final = 20.0  # seconds for a QEMU that is only asked about itself
_LONGEST: Final = 1e6  # seconds: a limit of time may be infinite, which no socket takes
_ERRORS_FILE: Final = "errors"
_RECEIVE_BYTES: Final = 1 << 16
# What a guest prints while we do something else waits in the pipe; a full one would make its UART drop bytes. This is the most
# that Linux gives to anybody. (A socket takes some hundred single bytes only: each has a buffer of its own there.)
_PIPE_BYTES: Final = 1 << 20
_SHOWN_BYTES: Final = 1 << 16  # of what it wrote that is looked at
_SHOWN_LINES: Final = 3
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

_libc = ctypes.CDLL(None)  # loaded before the fork: after it only the call is made


def patience(seconds: float) -> float:
    """How many seconds to wait for an answer in a run that is limited to `seconds`."""
    return min(seconds, _LONGEST) + _PATIENCE


def die_with_parent() -> None:
    """In a new process, before it executes anything: whoever kills this one shall not leave the other running."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def complaint(text: str) -> str:
    """What QEMU has written but warnings, its own name left out, as a phrase."""
    lines = [line.strip() for line in text.splitlines()]
    words = [line.removeprefix(f"{PROGRAM}: ") for line in lines if line and ": warning: " not in line]
    return "; ".join(words[:_SHOWN_LINES])


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def cleaning_up_at_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end this process, but not before every `with` is left: files and other processes go first."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for number, handler in before.items():
            if handler is signal.SIG_DFL:
                signal.signal(number, _leave)
        yield
    finally:
        for number, handler in before.items():
            if handler is signal.SIG_DFL:
                signal.signal(number, handler)


def start_qemu(line: Sequence[str], output: IO[bytes], descriptors: Sequence[int]) -> "subprocess.Popen[bytes]":
    """QEMU's process, which ends with this one, inherits `descriptors` and writes to `output`; BootError if it cannot start."""
    try:
        return subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C is for us
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        raise BootError(f"QEMU does not start: {line[0]}: {error.strerror}") from None


def output_of(*line: str) -> bytes:
    """What a QEMU prints that only tells of itself (`--version`); BootError if it does not."""
    try:
        return subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, timeout=_BRIEF, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        raise BootError(f"{' '.join(line)}: QEMU does not answer") from None


def how_it_ended(process: "subprocess.Popen[bytes]") -> str:
    """Of a QEMU that has closed its channels, as a phrase; one that does not end is killed."""
    try:
        status = process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return f"it has ended with {how} and does not say why"


class QemuProcess:
    """QEMU, waiting before the guest's first instruction. `sockets` and `pipes` (descriptors) are its channels by name, what
    it prints on the guest's behalf comes through the pipes; `directory` is for its files; `start_ns` is CLOCK_MONOTONIC just
    before it was made."""

    def __init__(
        self, make_line: LineMaker, extra: Sequence[str], sockets: Sequence[str] = SOCKETS, pipes: Sequence[str] = PIPES
    ) -> None:
        """Raises BootError if there is no QEMU, or it cannot be executed, and as `make_line` does."""
        self.sockets: dict[str, socket.socket] = {}
        self.pipes: dict[str, int] = {}
        with ExitStack() as stack, ExitStack() as inherited:
            stack.enter_context(cleaning_up_at_signals())
            program = find_program()
            descriptors: dict[str, int] = {}
            for name in sockets:
                ours, theirs = socket.socketpair()
                self.sockets[name] = stack.enter_context(ours)
                descriptors[name] = inherited.enter_context(theirs).fileno()
            for name in pipes:
                self.pipes[name], descriptors[name] = os.pipe()
                stack.callback(os.close, self.pipes[name])
                inherited.callback(os.close, descriptors[name])
                os.set_blocking(self.pipes[name], False)
                with suppress(OSError):  # the system may allow less
                    fcntl.fcntl(self.pipes[name], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            try:
                self.directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pvhboot-"))
                line = make_line(program, self.directory, descriptors)
                errors = inherited.enter_context(open(os.path.join(self.directory, _ERRORS_FILE), "wb"))
            except OSError as error:
                raise BootError(f"cannot write QEMU's files to {tempfile.gettempdir()} (TMPDIR): {error.strerror}") from None
            self.start_ns = time.monotonic_ns()
            self._process = start_qemu([*line, *extra], errors, tuple(descriptors.values()))
            stack.callback(self.end)
            self._closing = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.close()

    def end(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.wait()

    def receive(self, pipe: str) -> bytes:
        """What has come through a pipe; b"" if nothing has, or QEMU has closed it."""
        try:
            return os.read(self.pipes[pipe], _RECEIVE_BYTES)
        except BlockingIOError:
            return b""

    @property
    def status(self) -> int | None:
        """With which one it has ended (negative: by that signal); None if it has not."""
        return self._process.poll()

    def last_words(self) -> str:
        """How a QEMU that has closed its channels ended, and what it wrote, as a phrase."""
        how = how_it_ended(self._process)
        return self.complaint() or how

    def complaint(self) -> str:
        """What QEMU has written but warnings, its own name left out; "" if it has written nothing."""
        return complaint(self._text(_ERRORS_FILE))

    def has_logged(self, words: str) -> bool:
        """Whether a line of QEMU's log (-d cpu_reset) has these words."""
        return any(words in line for line in self.log())

    def log(self) -> Iterator[str]:
        """The lines of QEMU's log so far."""
        with suppress(FileNotFoundError), open(os.path.join(self.directory, LOG_FILE), errors="replace") as file:
            yield from file

    def _text(self, name: str) -> str:
        try:
            with open(os.path.join(self.directory, name), "rb") as file:
                return file.read(_SHOWN_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return ""
