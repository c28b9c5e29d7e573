"""A QEMU process with its channels, ended when its `with` is, whatever happens in it."""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from pvhboot.loader.plan import BootPlan

from .command import LOG_FILE, PIPES, SOCKETS, command_line, find_program

_GRACE: Final = 5.0  # seconds that a QEMU which has closed its channels gets to end
_ERRORS_FILE: Final = "errors"
_RECEIVE_BYTES: Final = 1 << 16
# What a guest prints while we do something else waits in the pipe; a full one would make its UART drop bytes. This is the most
# that Linux gives to anybody. (A socket takes some hundred single bytes only: each has a buffer of its own there.)
_PIPE_BYTES: Final = 1 << 20
_SHOWN_BYTES: Final = 1 << 16  # of what it wrote that is looked at
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

_libc = ctypes.CDLL(None)  # loaded before the fork: after it only the call is made


def _die_with_parent() -> None:
    """Whoever kills this process shall not leave a QEMU running."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class QemuProcess:
    """QEMU, waiting before the guest's first instruction. `sockets` and `pipes` (descriptors) are its channels by name, what
    it prints on the guest's behalf comes through the pipes; `directory` is for its files."""

    def __init__(self, plan: BootPlan, accelerator: str, extra: list[str]) -> None:
        """Raises BootError if there is no QEMU, or it cannot hold the plan."""
        self.sockets: dict[str, socket.socket] = {}
        self.pipes: dict[str, int] = {}
        with ExitStack() as stack, ExitStack() as inherited:
            self.directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pvhboot-"))
            descriptors: dict[str, int] = {}
            for name in SOCKETS:
                ours, theirs = socket.socketpair()
                self.sockets[name] = stack.enter_context(ours)
                descriptors[name] = inherited.enter_context(theirs).fileno()
            for name in PIPES:
                self.pipes[name], descriptors[name] = os.pipe()
                stack.callback(os.close, self.pipes[name])
                inherited.callback(os.close, descriptors[name])
                fcntl.fcntl(self.pipes[name], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            line = command_line(find_program(), plan, accelerator, self.directory, descriptors)
            errors = inherited.enter_context(open(os.path.join(self.directory, _ERRORS_FILE), "wb"))
            self._process = subprocess.Popen(
                [*line, *extra],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                pass_fds=tuple(descriptors.values()),
                start_new_session=True,  # Ctrl-C is for us
                preexec_fn=_die_with_parent,
            )
            stack.callback(self._end)
            self._closing = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def receive(self, pipe: str) -> bytes:
        """What has come through a pipe, or will; b"" when QEMU has closed it."""
        return os.read(self.pipes[pipe], _RECEIVE_BYTES)

    def exit_status(self) -> int:
        """Of a QEMU that has closed its channels; negative: the signal that ended it."""
        try:
            return self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._end()
            return self._process.returncode

    def complaint(self) -> str:
        """The last line that QEMU has written, without its own name in front; "" if it has written none."""
        lines = self._text(_ERRORS_FILE).strip().splitlines()
        return lines[-1].partition(": ")[2] or lines[-1] if lines else ""

    def has_logged(self, words: str) -> bool:
        """Whether QEMU's log (-d cpu_reset) has these words."""
        return words in self._text(LOG_FILE)

    def _text(self, name: str) -> str:
        try:
            with open(os.path.join(self.directory, name), "rb") as file:
                return file.read(_SHOWN_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return ""
