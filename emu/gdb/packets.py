"""Packets of GDB's remote serial protocol: what they look like on the wire.

Source: GDB manual, appendix E: "Overview" (framing, escapes, run-length encoding, of which nothing is expected here),
"Interrupts", "Packet Acknowledgment".
"""

import re
from enum import Enum
from typing import Final, NamedTuple

# The numbers that gdb has for signals: its include/gdb/signals.def.
SIGINT: Final = 2
SIGTRAP: Final = 5
SIGABRT: Final = 6
SIGBUS: Final = 10
SIGSEGV: Final = 11
SIGSTOP: Final = 17
SIGXCPU: Final = 24

PACKET_MAX: Final = 0x4000  # bytes of a packet between `$` and `#`: what qSupported tells gdb
_INTERRUPT: Final = 0x03
_ESCAPE: Final = 0x7D
_ESCAPED_BY: Final = 0x20
# `*` would begin a run of the same byte in what gdb receives.
_TO_ESCAPE: Final = b"#$*}"
_NUMBER: Final = re.compile(rb"[0-9a-fA-F]{1,16}")


class ProtocolError(Exception):
    """What has come is not gdb's protocol, or breaks it: there is no going on."""


class Kind(Enum):
    """What can come from gdb."""

    PACKET = "packet"
    BROKEN = "broken"  # a packet whose checksum is wrong
    REFUSED = "refused"  # gdb has got a broken packet, and wants it again
    INTERRUPT = "interrupt"  # Ctrl-C
    GONE = "gone"  # the connection is closed
    NONSENSE = "nonsense"  # a ProtocolError, whose words are the data


class Message(NamedTuple):
    """Something that has come; `data` is the content of a packet, without escapes."""

    kind: Kind
    data: bytes = b""


def frame(data: bytes) -> bytes:
    """A packet around data that has no byte to escape but those of `binary`."""
    return b"$%s#%02x" % (data, sum(data) & 0xFF)


def binary(data: bytes) -> bytes:
    """Any bytes, as a packet may hold them."""
    out = bytearray()
    for byte in data:
        out += bytes([_ESCAPE, byte ^ _ESCAPED_BY]) if byte in _TO_ESCAPE else bytes([byte])
    return bytes(out)


def number(text: bytes) -> int:
    """What a packet has in hexadecimal; ValueError for anything else, a sign or spaces, too."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is no hexadecimal number of up to 64 bits")
    return int(text, 16)


class Framer:
    """Cuts what comes, in pieces of any size, into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now; ProtocolError for what cannot be one."""
        self._buffer += data
        found = []
        while (message := self._next()) is not None:
            found.append(message)
        return found

    def _next(self) -> Message | None:
        buffer = self._buffer
        while buffer:
            first = buffer[0]
            if first == ord("$"):
                return self._packet()
            del buffer[0]
            if first == ord("-"):
                return Message(Kind.REFUSED)
            if first == _INTERRUPT:
                return Message(Kind.INTERRUPT)
            if first != ord("+"):
                raise ProtocolError(f"the byte {first:#04x} where a packet begins: the client is no gdb")
        return None

    def _packet(self) -> Message | None:
        end = self._buffer.find(b"#")
        if (end if end >= 0 else len(self._buffer)) > PACKET_MAX + 1:
            raise ProtocolError(f"a packet of more than {PACKET_MAX} bytes")
        if end < 0 or len(self._buffer) < end + 3:
            return None
        content, checksum = bytes(self._buffer[1:end]), bytes(self._buffer[end + 1 : end + 3])
        del self._buffer[: end + 3]
        if checksum.lower() != b"%02x" % (sum(content) & 0xFF):
            return Message(Kind.BROKEN)
        return Message(Kind.PACKET, _unescape(content))


def _unescape(content: bytes) -> bytes:
    out, at = bytearray(), 0
    while at < len(content):
        byte = content[at]
        if byte == _ESCAPE:
            at += 1
            if at == len(content):
                raise ProtocolError("a packet that ends within an escape")
            byte = content[at] ^ _ESCAPED_BY
        out.append(byte)
        at += 1
    return bytes(out)
