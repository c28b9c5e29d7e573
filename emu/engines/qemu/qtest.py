"""A QEMU's ports and memory by the qtest protocol, of one that runs nothing or is stopped.

Source: QEMU docs/devel/testing/qtest.rst and softmmu/qtest.c (the commands).
"""

import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Final, Self

from pvhboot.shim.abi.x86 import HLT
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import ROM_GRANULE, MachineSpec

from .command import find_program
from .process import cleaning_up_at_signals, complaint, how_it_ended, start_qemu

_TIMEOUT: Final = 30.0  # seconds, for each answer
_WIDTHS: Final = {1: "b", 2: "w", 4: "l"}


class Qtest:
    """A connection to a QEMU by which its ports and memory are reached. All methods raise BootError if QEMU ends: `words` says
    why it has."""

    def __init__(self, connection: socket.socket, words: Callable[[], str]) -> None:
        connection.settimeout(_TIMEOUT)
        self._socket, self._words = connection, words
        self._answers: IO[bytes] = connection.makefile("rb")
        self._answered = False

    def close(self) -> None:
        """No more is asked. The socket itself is the caller's."""
        self._answers.close()

    def port_read(self, port: int, size: int) -> int:
        """`in` of 1, 2 or 4 bytes."""
        return self._number(self._ask(f"in{_WIDTHS[size]} {port:#x}"))

    def port_write(self, port: int, size: int, value: int) -> None:
        """`out`."""
        self._ask(f"out{_WIDTHS[size]} {port:#x} {value:#x}")

    def read(self, paddr: int, size: int) -> bytes:
        """Memory, as a CPU would read it."""
        answer = self._ask(f"read {paddr:#x} {size:#x}")
        try:
            return bytes.fromhex(answer.removeprefix("0x"))
        except ValueError:
            raise BootError(f"QEMU answers {answer!r} to a read by qtest") from None

    def write(self, paddr: int, data: bytes) -> None:
        """Memory, as a CPU would write it."""
        self._ask(f"write {paddr:#x} {len(data):#x} 0x{data.hex()}")

    def _number(self, answer: str) -> int:
        try:
            return int(answer, 16)
        except ValueError:
            raise BootError(f"QEMU answers {answer!r} to a read by qtest") from None

    def _ask(self, command: str) -> str:
        """Sends it; what it gives."""
        try:
            self._socket.sendall(f"{command}\n".encode())
            while True:
                line = self._answers.readline().decode("ascii", "replace").split()
                if not line:
                    raise BootError(f"QEMU does not {'go on' if self._answered else 'start'}: {self._words()}")
                self._answered = True
                if line[0] == "IRQ":  # of a line that nobody here listens to
                    continue
                if line[0] != "OK":
                    raise BootError(f"QEMU refuses {command.split()[0]} by qtest: {' '.join(line)}")
                return line[1] if len(line) > 1 else ""
        except TimeoutError:
            raise BootError(f"QEMU has not answered for {_TIMEOUT:g} seconds") from None
        except OSError:
            raise BootError(f"QEMU does not {'go on' if self._answered else 'start'}: {self._words()}") from None


class QtestMachine(Qtest):
    """A machine with these arguments, at its reset; ended when its `with` is. All methods raise BootError if QEMU ends."""

    def __init__(self, spec: MachineSpec, memory: int, cpus: int, accelerator: str, extra: Sequence[str]) -> None:
        """`memory` in bytes. UnavailableError if there is no QEMU; BootError, with its own words, if it does not start."""
        program = find_program()
        with ExitStack() as stack:
            stack.enter_context(cleaning_up_at_signals())
            try:
                self._errors: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
                rom = stack.enter_context(tempfile.NamedTemporaryFile(prefix="pvhboot-"))
                rom.write(HLT * ROM_GRANULE)
                rom.flush()
            except OSError as error:
                raise BootError(f"cannot write QEMU's files to the temporary directory (TMPDIR): {error.strerror}") from None
            ours, theirs = socket.socketpair()
            super().__init__(stack.enter_context(ours), self._last_words)
            stack.callback(self.close)
            line = [program, "-nodefaults", "-no-user-config", "-display", "none", "-machine", spec.qemu, "-S"]
            line += ["-accel", accelerator, "-smp", str(cpus), "-m", f"{memory >> 10}K", "-bios", rom.name]
            line += ["-chardev", f"socket,id=qtest,fd={theirs.fileno()}", "-qtest", "chardev:qtest", "-qtest-log", "/dev/null"]
            line += extra
            with theirs:
                self._process = start_qemu(line, self._errors, (theirs.fileno(),))
            stack.callback(self._end)
            self._closing = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _last_words(self) -> str:
        how = how_it_ended(self._process)
        self._errors.seek(0)
        return complaint(self._errors.read().decode(errors="replace")) or how
