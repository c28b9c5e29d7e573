"""A QEMU whose CPU never runs, and its ports and memory by the qtest protocol.

Source: QEMU docs/devel/testing/qtest.rst and softmmu/qtest.c (the commands).
"""

import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Final, Self

from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import ROM_GRANULE, MachineSpec

from .command import find_program
from .process import complaint, die_with_parent

_TIMEOUT: Final = 30.0  # seconds, for each answer
_WIDTHS: Final = {1: "b", 2: "w", 4: "l"}
_HLT: Final = b"\xf4"
_GRACE: Final = 5.0  # seconds that a QEMU which has closed its channel gets to end


class QtestMachine:
    """A machine with these arguments, at its reset; ended when its `with` is. All methods raise BootError if QEMU ends."""

    def __init__(self, spec: MachineSpec, memory: int, cpus: int, accelerator: str, extra: Sequence[str]) -> None:
        """`memory` in bytes. UnavailableError if there is no QEMU; BootError, with its own words, if it does not start."""
        program = find_program()
        self._answered = False
        with ExitStack() as stack:
            try:
                self._errors: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
                rom = stack.enter_context(tempfile.NamedTemporaryFile(prefix="pvhboot-"))
                rom.write(_HLT * ROM_GRANULE)
                rom.flush()
            except OSError as error:
                raise BootError(f"cannot write QEMU's files to the temporary directory (TMPDIR): {error.strerror}") from None
            ours, theirs = socket.socketpair()
            self._socket = stack.enter_context(ours)
            ours.settimeout(_TIMEOUT)
            self._answers: IO[bytes] = stack.enter_context(ours.makefile("rb"))
            line = [program, "-nodefaults", "-no-user-config", "-display", "none", "-machine", spec.qemu, "-S"]
            line += ["-accel", accelerator, "-smp", str(cpus), "-m", f"{memory >> 10}K", "-bios", rom.name]
            line += ["-chardev", f"socket,id=qtest,fd={theirs.fileno()}", "-qtest", "chardev:qtest", "-qtest-log", "/dev/null"]
            line += extra
            with theirs:
                try:
                    self._process = subprocess.Popen(
                        line,
                        stdin=subprocess.DEVNULL,
                        stdout=self._errors,
                        stderr=self._errors,
                        pass_fds=(theirs.fileno(),),
                        start_new_session=True,  # Ctrl-C is for us
                        preexec_fn=die_with_parent,
                    )
                except OSError as error:
                    raise BootError(f"QEMU does not start: {program}: {error.strerror}") from None
            stack.callback(self._end)
            self._closing = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def port_read(self, port: int, size: int) -> int:
        """`in` of 1, 2 or 4 bytes."""
        return self._number(self._ask([f"in{_WIDTHS[size]} {port:#x}"])[0])

    def port_write(self, port: int, size: int, value: int) -> None:
        """`out`."""
        self._ask([f"out{_WIDTHS[size]} {port:#x} {value:#x}"])

    def read(self, paddr: int, size: int) -> bytes:
        """Memory, as a CPU would read it."""
        answer = self._ask([f"read {paddr:#x} {size:#x}"])[0]
        try:
            return bytes.fromhex(answer.removeprefix("0x"))
        except ValueError:
            raise BootError(f"QEMU answers {answer!r} to a read by qtest") from None

    def write(self, paddr: int, data: bytes) -> None:
        """Memory, as a CPU would write it."""
        self._ask([f"write {paddr:#x} {len(data):#x} 0x{data.hex()}"])

    def _number(self, answer: str) -> int:
        try:
            return int(answer, 16)
        except ValueError:
            raise BootError(f"QEMU answers {answer!r} to a read by qtest") from None

    def _ask(self, commands: Sequence[str]) -> list[str]:
        """Sends all; what each gives."""
        values: list[str] = []
        try:
            self._socket.sendall("".join(f"{command}\n" for command in commands).encode())
            while len(values) < len(commands):
                line = self._answers.readline().decode("ascii", "replace").split()
                if not line:
                    raise BootError(f"QEMU does not {'go on' if self._answered else 'start'}: {self._last_words()}")
                self._answered = True
                if line[0] != "IRQ":  # of a line that nobody here listens to
                    if line[0] != "OK":
                        raise BootError(f"QEMU refuses {commands[len(values)].split()[0]} by qtest: {' '.join(line)}")
                    values.append(line[1] if len(line) > 1 else "")
        except TimeoutError:
            raise BootError(f"QEMU has not answered for {_TIMEOUT:g} seconds") from None
        except OSError:
            raise BootError(f"QEMU does not {'go on' if self._answered else 'start'}: {self._last_words()}") from None
        return values

    def _last_words(self) -> str:
        try:
            status = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._end()
            status = self._process.returncode
        self._errors.seek(0)
        words = complaint(self._errors.read().decode(errors="replace"))
        return words or f"it has ended with status {status} and does not say why"
