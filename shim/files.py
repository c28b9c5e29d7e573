"""Reading input files, without ever waiting for one that is no file."""

import os
import stat

from .errors import BootError


def open_file(path: str | os.PathLike[str]) -> int:
    """A descriptor for reading; OSError as from os.open. Non-blocking: a FIFO would hold the caller until somebody writes."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def fill(descriptor: int, offset: int, buffer: memoryview) -> int:
    """Reads from `offset` bytes into the file until the buffer of bytes is full or the file ends; how many were read.

    Raises OSError for what the system refuses.
    """
    done = 0
    while done < len(buffer) and (count := os.preadv(descriptor, [buffer[done:]], offset + done)):
        done += count
    return done


def read_file(path: str, what: str, limit: int) -> bytes:
    """The bytes of a regular file of 1 to `limit` bytes; BootError, which says `what` it was to be, for anything else."""
    try:
        with open(open_file(path), "rb") as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(limit + 1) if regular else b""
    except OSError as error:
        raise BootError(f"{path}: cannot read the {what}: {error.strerror}") from None
    if not regular:
        raise BootError(f"{path}: the {what} must be a regular file")
    if len(data) > limit:
        raise BootError(f"{path}: the {what} has more than {limit} bytes")
    if not data:
        raise BootError(f"{path}: the {what} is empty")
    return data
