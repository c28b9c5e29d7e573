"""The GDB remote serial protocol, as far as QEMU is spoken to by it: breakpoints, continue, stop and why, the monitor.

Source: GDB manual, appendix E "GDB Remote Serial Protocol" (packets, `Z1`, `c`, stop reply packets, interrupts, `qRcmd`).
"""

import socket
from typing import Final

from pvhboot.shim.errors import BootError

from ...gdb.packets import Framer, Kind, Message, ProtocolError, frame

_INTERRUPT: Final = b"\x03"


class GdbGone(Exception):
    """QEMU has closed the connection."""


class Gdb:
    """A connection to QEMU's gdb stub. All methods raise TimeoutError as the socket's timeout has it."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._framer = Framer()
        self._messages: list[Message] = []

    def wait_until_ready(self) -> None:
        """Until it answers: that is when QEMU has made its machine."""
        self._send("?")
        while self._packet() is None:
            self._receive()

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

    def interrupt(self) -> None:
        """Has the guest stop, and waits for it. GdbGone if QEMU has ended."""
        self._write(_INTERRUPT)
        while self.stop_signal() is None:
            pass

    def monitor(self, line: str) -> str:
        """What a command of QEMU's human monitor prints, while the guest is stopped; what it cannot answer is empty."""
        self._send(f"qRcmd,{line.encode().hex()}")
        printed = b""
        while True:
            if (packet := self._packet()) is None:
                self._receive()
            elif packet.startswith("O") and packet != "OK":
                printed += bytes.fromhex(packet[1:])
            else:
                return printed.decode(errors="replace")

    def _send(self, text: str) -> None:
        self._write(frame(text.encode()))

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
        try:
            self._messages += self._framer.feed(data)
        except ProtocolError as error:
            raise BootError(f"QEMU's gdb stub sends {error}") from None

    def _packet(self) -> str | None:
        """The text of the next packet, acknowledged, if there is a whole one."""
        while self._messages:
            message = self._messages.pop(0)
            if message.kind is Kind.PACKET:
                self._write(b"+")
                return message.data.decode()
        return None
