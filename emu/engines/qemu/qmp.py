"""The QEMU Machine Protocol, as far as the engine speaks it.

Source: QEMU docs/interop/qmp-spec.rst (greeting, commands, events), docs/interop/qemu-qmp-ref (the commands).
"""

import json
import socket
from collections import deque
from typing import Any

from pvhboot.shim.errors import BootError


class QmpGone(Exception):
    """QEMU has closed the connection."""


class Qmp:
    """A connection in command mode. Whatever arrives that nobody has asked for, an event, waits in `events`.

    All methods that wait raise TimeoutError as the socket's timeout has it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.events: deque[dict[str, Any]] = deque()
        self._answers: deque[dict[str, Any]] = deque()
        self._buffer = b""

    def negotiate(self) -> None:
        """Takes the greeting and leaves negotiation mode; QmpGone if QEMU ends instead."""
        self._answer()
        self.command("qmp_capabilities")

    def command(self, name: str, /, **arguments: Any) -> Any:
        """What a command returns; BootError with QEMU's own words if it fails, QmpGone if QEMU ends."""
        request = {"execute": name, "arguments": arguments} if arguments else {"execute": name}
        try:
            self.socket.sendall(json.dumps(request).encode() + b"\n")
        except TimeoutError:
            raise
        except OSError:
            raise QmpGone from None
        answer = self._answer()
        if "error" in answer:
            raise BootError(f"QEMU refuses {name}: {answer['error']['desc']}")
        return answer["return"]

    def monitor(self, line: str) -> str:
        """What a command of the human monitor prints."""
        answer: str = self.command("human-monitor-command", **{"command-line": line})
        return answer

    def receive(self) -> None:
        """Takes what has come, or waits for something to come. QmpGone if QEMU has ended."""
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            raise
        except OSError:
            data = b""
        if not data:
            raise QmpGone
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message: dict[str, Any] = json.loads(line)
            (self.events if "event" in message else self._answers).append(message)

    def _answer(self) -> dict[str, Any]:
        while not self._answers:
            self.receive()
        return self._answers.popleft()
