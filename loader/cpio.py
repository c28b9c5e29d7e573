"""A newc cpio archive, as Linux unpacks it into its first root file system: written, and followed entry by entry.

Sources: Linux Documentation/driver-api/early-userspace/buffer-format.rst (the format); init/initramfs.c (what is taken, and
what is skipped without a word); usr/gen_init_cpio.c (the last of a file's hard links carries its data, as GNU cpio has it too).
"""

import re
import stat
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final, NamedTuple, Protocol

from pvhboot.shim.errors import BootError

PATH_MAX: Final = 4096  # bytes of a name or of a symbolic link's target, each with its NUL (linux/limits.h)
FILE_MAX_SIZE: Final = 0xFFFFFFFF  # bytes: c_filesize has eight hexadecimal digits
TIME_MAX: Final = 0xFFFFFFFF  # seconds: so has c_mtime
TRAILER: Final = b"TRAILER!!!"

_MAGIC: Final = b"070701"
_MAGICS: Final = (_MAGIC, b"070702")  # the second has a checksum in c_chksum
_OLD_MAGIC: Final = b"070707"
_HEADER: Final = re.compile(rb"(?:[0-9A-Fa-f]{8}){13}")
_HEADER_SIZE: Final = 6 + 13 * 8  # bytes
_FILESIZE, _NAMESIZE = 6, 11  # which of the 13 fields
_ALIGN: Final = 4
_DIRECTORY_LINKS: Final = 2


class Content(Protocol):
    """The bytes of a file, read when they are written; `size` in bytes."""

    size: int

    def chunks(self) -> Iterator[bytes]:
        """All of them, `size` in number; BootError if there are more or fewer, or they cannot be read."""


class Entry(NamedTuple):
    """A file for an archive.

    `name` is relative, without "." or ".."; `mode` is as st_mode has it, with its type; `content` is what a regular file holds
    or a symbolic link points to; `device` is major and minor of a device node. Entries with the same `file` are hard links of
    one (None: it has no other name).
    """

    name: bytes
    mode: int
    content: bytes | Content = b""
    device: tuple[int, int] = (0, 0)
    file: tuple[int, int] | None = None


def archive(entries: Iterable[Entry], mtime: int = 0) -> Iterator[bytes]:
    """The archive, piece by piece: sorted by name, owned by root, all of it last changed at `mtime` (seconds since 1970).

    Nothing else goes in: the same entries give the same bytes. BootError for a name that Linux would not take, for two entries
    of one name, a content of 4 GiB or more, or one that is not what it was.
    """
    ordered = sorted(entries, key=lambda entry: entry.name)
    names_left: dict[tuple[int, int], int] = {}
    for entry in ordered:
        _check(entry)
        if entry.file is not None:
            names_left[entry.file] = names_left.get(entry.file, 0) + 1
    for name, same in groupby(ordered, key=lambda entry: entry.name):
        if len(list(same)) > 1:
            raise BootError(f"{show(name)}: is to be archived twice")
    links = dict(names_left)
    inodes: dict[tuple[int, int], int] = {}
    inode = 1
    for entry in ordered:
        count = _DIRECTORY_LINKS if stat.S_ISDIR(entry.mode) else 1
        number = inode
        if entry.file is not None:
            names_left[entry.file] -= 1
            count = links[entry.file]
            number = inodes.setdefault(entry.file, inode)
        inode += number == inode
        content: bytes | Content = b"" if entry.file is not None and names_left[entry.file] else entry.content
        yield from _write(entry.name, entry.mode, content, number, count, mtime, entry.device)
    yield from _write(TRAILER, 0, b"", 0, 1, 0, (0, 0))


def show(name: bytes) -> str:
    """A file's name in one line, whatever is in it."""
    return repr(name.decode("utf-8", "surrogateescape"))[1:-1]


def _write(
    name: bytes, mode: int, content: bytes | Content, inode: int, links: int, mtime: int, device: tuple[int, int]
) -> Iterator[bytes]:
    size = len(content) if isinstance(content, bytes) else content.size
    # c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, c_maj, c_min, c_rmaj, c_rmin, c_namesize, c_chksum
    fields = (inode, mode, 0, 0, links, mtime, size, 0, 0, *device, len(name) + 1, 0)
    head = _MAGIC + b"".join(b"%08x" % field for field in fields) + name + b"\0"
    yield head + bytes(-len(head) % _ALIGN)
    yield from (content,) if isinstance(content, bytes) else content.chunks()
    yield bytes(-size % _ALIGN)


def _check(entry: Entry) -> None:
    """BootError if Linux would skip the entry, or take it for something else."""
    name, shown = entry.name, show(entry.name)
    if len(name) >= PATH_MAX:
        raise BootError(f"{shown[:64]}…: a name of {len(name)} bytes: Linux takes {PATH_MAX - 1}")
    if b"\0" in name or any(part in (b"", b".", b"..") for part in name.split(b"/")):
        raise BootError(f"{shown or 'an empty name'}: cannot be archived: write a name as in dev/console")
    if name == TRAILER:
        raise BootError(f"{shown}: cannot be archived: an entry of that name ends an archive")
    size = len(entry.content) if isinstance(entry.content, bytes) else entry.content.size
    if size > FILE_MAX_SIZE:
        raise BootError(f"{shown}: {size} bytes: a file in a cpio archive has less than 4 GiB")
    if stat.S_ISLNK(entry.mode) and not 0 < size < PATH_MAX:
        raise BootError(f"{shown}: a symbolic link to a path of {size} bytes: 1 to {PATH_MAX - 1} would be right")


class Follower:
    """Goes through an archive to the end of its trailer, as Linux does, and counts its `entries`."""

    def __init__(self) -> None:
        self.entries = 0
        self.done = False
        self.at = 0  # bytes followed
        self._skip = 0
        self._wanted = _HEADER_SIZE
        self._collected = bytearray()

    def feed(self, data: bytes | memoryview, start: int = 0) -> int:
        """Takes more of the archive, `data` from `start`; how far: less than all of it only once the archive is `done`.

        BootError, which says where in the archive, for what is no newc archive.
        """
        at = start
        while at < len(data) and not self.done:
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                piece = data[at : at + self._wanted - len(self._collected)]
                step = len(piece)
                self._collected += piece
            at += step
            self.at += step
            if len(self._collected) == self._wanted:
                self._take()
        return at

    def _take(self) -> None:
        header = bytes(self._collected[:_HEADER_SIZE])
        begin = self.at - len(self._collected)
        if header[:6] == _OLD_MAGIC:
            raise BootError(f"a cpio archive of the format odc, at +{begin:#x}: Linux takes newc (cpio -H newc)")
        if header[:6] not in _MAGICS or not _HEADER.fullmatch(header[6:]):
            raise BootError(f"no newc header at +{begin:#x}: it starts with {header[:6].hex(' ')}")
        fields = [int(header[at : at + 8], 16) for at in range(6, _HEADER_SIZE, 8)]
        name_size, size = fields[_NAMESIZE], fields[_FILESIZE]
        if not 0 < name_size <= PATH_MAX:
            raise BootError(f"the entry at +{begin:#x} has a name of {name_size} bytes: 1 to {PATH_MAX} would be right")
        if self._wanted == _HEADER_SIZE:
            self._wanted += name_size
            return
        name = self._collected[_HEADER_SIZE:].partition(b"\0")[0]
        self.done = name == TRAILER
        self.entries += not self.done
        self._skip = -self._wanted % _ALIGN + size + -size % _ALIGN
        self._wanted = _HEADER_SIZE
        self._collected.clear()
