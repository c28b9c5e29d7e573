"""The GDB remote serial protocol, as far as the engine speaks it: breakpoints, continue, why it stopped.

Source: GDB manual, appendix E "GDB Remote Serial Protocol" (packets, `Z1`, `c`, stop reply packets).
"""

import socket
from typing import Final

from pvhboot.shim.errors import BootError

SIGTRAP: Final = 5
SIGABRT: Final = 6


class GdbGone(Exception):
    """QEMU has closed the connection."""


class Gdb:
    """A connection to QEMU's gdb stub. All methods raise TimeoutError as the socket's timeout has it."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = bytearray()

    def break_at(self, address: int, wanted: bool) -> None:
        """Sets a hardware breakpoint at a linear address, or takes it away; BootError if the stub has none."""
        self._send(f"{'Z' if wanted else 'z'}1,{address:x},1")
        while (answer := self._packet()) is None:
            self._receive()
        if answer != "OK":
            raise BootError(f"QEMU's gdb stub cannot break at {address:#x}: it answers {answer or 'nothing'!r}")

    def resume(self) -> None:
        """Lets the guest run; it answers when it stops."""
        self._send("c")

    def stop_signal(self) -> int | None:
        """Takes what has come: the signal of a stop reply, None if that is not complete yet. GdbGone if QEMU has ended."""
        self._receive()
        packet = self._packet()
        return int(packet[1:3], 16) if packet is not None and packet[:1] in ("T", "S") else None

    def _send(self, text: str) -> None:
        data = text.encode()
        self._write(b"$%s#%02x" % (data, sum(data) & 0xFF))

    def _write(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except TimeoutError:
            raise
        except OSError:
            raise GdbGone from None

    def _receive(self) -> None:
        try:
            data = self.socket.recv(1 << 12)
        except TimeoutError:
            raise
        except OSError:
            data = b""
        if not data:
            raise GdbGone
        self._buffer += data

    def _packet(self) -> str | None:
        """The text of the next packet, acknowledged, if there is a whole one; around it lie acknowledgements of ours."""
        start = self._buffer.find(b"$")
        end = self._buffer.find(b"#", start) if start >= 0 else -1
        if end < 0 or len(self._buffer) < end + 3:
            return None
        packet = self._buffer[start + 1 : end].decode()
        del self._buffer[: end + 3]
        self._write(b"+")
        return packet
