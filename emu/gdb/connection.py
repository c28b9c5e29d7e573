"""The socket of a gdb: packets in, packets out, and Ctrl-C while the guest runs."""

import errno
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, Self

from pvhboot.shim.errors import BootError

from .packets import Framer, Kind, Message, ProtocolError, frame

HOST: Final = "127.0.0.1"  # nobody else's business: whoever is connected reads and writes the guest
_PAUSE_AGAIN: Final = 0.02  # seconds: a CPU that was about to start has not heard the first time


class ClientGone(Exception):
    """The connection is closed, or of no more use; its words say why."""


class Listener:
    """A port of this host's loopback interface, for one gdb."""

    def __init__(self, port: int) -> None:
        """Port 0 is any that is free. BootError if the port cannot be had."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((HOST, port))
            self._socket.listen(1)
        except OSError as error:
            self._socket.close()
            why = "somebody has it" if error.errno == errno.EADDRINUSE else error.strerror
            raise BootError(f"cannot wait for gdb on {HOST}:{port}: {why}; name another port, or 0 for any") from None
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def accept(self) -> "Connection":
        """Waits for the first client. A second one is refused by the host: nobody listens any more."""
        connected, _ = self._socket.accept()
        self._socket.close()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Connection(connected)


class Connection:
    """A connected gdb. A thread of its own reads, so that Ctrl-C is heard while the guest runs."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._acknowledging = True
        self._last = b""
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._taken = 0  # packets that were handed out
        self._received = 0  # and those that have come
        self._interrupted_at = -1  # how many had come when Ctrl-C did
        self._running = threading.Event()
        self._pause: Callable[[], None] = lambda: None
        self._reader = threading.Thread(target=self._read, name="gdb", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """What is sent already arrives."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

    def receive(self) -> bytes:
        """Waits for the next packet; ClientGone if there will be none."""
        while True:
            message = self._messages.get()
            if message.kind is Kind.PACKET:
                self._taken += 1
                self._acknowledge(b"+")
                return message.data
            if message.kind is Kind.BROKEN:
                self._acknowledge(b"-")
            elif message.kind is Kind.REFUSED:
                self._write(self._last)
            else:
                raise ClientGone(message.data.decode())

    def send(self, data: bytes) -> None:
        """Sends a packet; ClientGone if nobody is there."""
        self._last = frame(data)
        self._write(self._last)

    def stop_acknowledging(self) -> None:
        """From here on neither side acknowledges."""
        self._acknowledging = False

    @contextmanager
    def interrupting(self, pause: Callable[[], None]) -> Iterator[None]:
        """While this lasts `pause` is called, from another thread and perhaps several times, if gdb interrupts or goes away."""
        self._pause = pause
        self._running.set()
        try:
            yield
        finally:
            self._running.clear()

    @property
    def interrupted(self) -> bool:
        """Ctrl-C has come since the last packet that was handed out, or the end."""
        return self._interrupted_at >= self._taken

    def _read(self) -> None:
        framer = Framer()
        end = Message(Kind.GONE, b"gdb has closed the connection")
        try:
            while data := self._socket.recv(1 << 12):
                for message in framer.feed(data):
                    if message.kind is Kind.INTERRUPT:
                        self._interrupt()
                    else:
                        self._received += message.kind is Kind.PACKET
                        self._messages.put(message)
        except ProtocolError as error:
            end = Message(Kind.NONSENSE, str(error).encode())
        except OSError:
            pass  # as if it were closed
        self._messages.put(end)
        self._interrupt()

    def _interrupt(self) -> None:
        self._interrupted_at = self._received
        while self._running.is_set():
            self._pause()
            time.sleep(_PAUSE_AGAIN)

    def _acknowledge(self, sign: bytes) -> None:
        if self._acknowledging:
            self._write(sign)

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            raise ClientGone("gdb has closed the connection") from None
