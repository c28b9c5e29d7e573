"""A file that gdb fetches through its connection: the firmware's ELF, so that it has symbols and lines without being told.

Source: GDB manual, appendix E, "File-I/O Remote Protocol Extension" (struct stat, errno values) and "Host I/O Packets".
"""

from typing import Final

from .packets import PACKET_MAX, binary, number

PATH: Final = b"/pvhboot-firmware.elf"  # as gdb shows it; it wants an absolute one
_DESCRIPTOR: Final = 3
_ENOENT: Final = 2
_EBADF: Final = 9
_EINVAL: Final = 22
_STAT_BYTES: Final = 64  # of its struct stat
_STAT_MODE: Final = 8  # offsets in there
_STAT_SIZE: Final = 28
_REGULAR: Final = 0o100444


def answer(content: bytes, request: bytes) -> bytes:
    """What is said to `vFile:` and the rest, of which this is the rest; empty for what there is not."""
    operation, _, rest = request.partition(b":")
    arguments = rest.split(b",")
    try:
        if operation == b"open":
            return b"F%x" % _DESCRIPTOR if bytes.fromhex(arguments[0].decode()) == PATH else _error(_ENOENT)
        if operation not in (b"pread", b"fstat", b"close"):
            return b""
        if number(arguments[0]) != _DESCRIPTOR:
            return _error(_EBADF)
        if operation == b"pread":
            count, offset = map(number, arguments[1:])
            return _data(content[offset : offset + min(count, PACKET_MAX // 4)])
        return _data(_stat(len(content))) if operation == b"fstat" else b"F0"
    except ValueError:
        return _error(_EINVAL)


def _data(data: bytes) -> bytes:
    return b"F%x;%s" % (len(data), binary(data))


def _error(number: int) -> bytes:
    return b"F-1,%x" % number


def _stat(size: int) -> bytes:
    out = bytearray(_STAT_BYTES)
    out[_STAT_MODE : _STAT_MODE + 4] = _REGULAR.to_bytes(4)
    out[_STAT_SIZE : _STAT_SIZE + 8] = size.to_bytes(8)
    return bytes(out)
