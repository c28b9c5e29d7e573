"""A directory of the host as the entries of an archive, and device nodes that need no root to make."""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from pvhboot.shim.errors import BootError

from .cpio import Entry, show

_CHUNK: Final = 1 << 20  # bytes
_DEVICE: Final = re.compile(
    r"(?P<path>.+)=(?P<type>[cb]):(?P<major>\d{1,5}):(?P<minor>\d{1,8})(?::(?P<mode>[0-7]{1,4}))?", re.DOTALL
)
_DEVICE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o755
_MAJOR_MAX: Final = (1 << 12) - 1  # linux/kdev_t.h: 12 bits of a dev_t, and 20
_MINOR_MAX: Final = (1 << 20) - 1


class HostFile:
    """A regular file of the host, opened while it is read; `size` in bytes is what it had when it was listed."""

    def __init__(self, path: bytes, size: int) -> None:
        self._path = path
        self.size = size

    def chunks(self) -> Iterator[bytes]:
        """All of its bytes; BootError if it cannot be read, or has another size by now."""
        done = 0
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            with open(os.open(self._path, flags), "rb", buffering=0) as file:
                while chunk := file.read(min(_CHUNK, self.size + 1 - done)):
                    done += len(chunk)
                    if done > self.size:
                        break
                    yield chunk
        except OSError as error:
            raise _unreadable(self._path, error) from None
        if done != self.size:
            raise BootError(f"{show(self._path)}: had {self.size} bytes, and has changed while it was read")


def read_tree(path: str) -> list[Entry]:
    """What is in a directory and below: the directory itself, owners and times are left out; symbolic links are not followed.

    BootError for what cannot be read. The contents of regular files are read when they are written.
    """
    root = os.fsencode(path)
    entries: list[Entry] = []
    pending = [b""]
    while pending:
        directory = pending.pop()
        try:
            with os.scandir(os.path.join(root, directory)) as found:
                for item in found:
                    name = os.path.join(directory, item.name)
                    status = item.stat(follow_symlinks=False)
                    entries.append(_entry(name, item.path, status))
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(name)
        except OSError as error:
            raise _unreadable(error.filename or os.path.join(root, directory), error) from None
    return entries


def parse_device(text: str) -> Entry:
    """A device node from PATH=c:MAJOR:MINOR[:MODE] (b: a block device; MODE octal, 0600 without); BootError for other text."""
    match = _DEVICE.fullmatch(text)
    if match is None:
        raise BootError(f"cannot read the device {text!r}: write dev/console=c:5:1, or with a mode: dev/vda=b:254:0:0660")
    major, minor = int(match["major"]), int(match["minor"])
    if major > _MAJOR_MAX or minor > _MINOR_MAX:
        raise BootError(f"the device {text!r}: a major number has at most {_MAJOR_MAX}, a minor one {_MINOR_MAX}")
    kind = stat.S_IFCHR if match["type"] == "c" else stat.S_IFBLK
    mode = int(match["mode"], 8) if match["mode"] else _DEVICE_MODE
    return Entry(os.fsencode(match["path"]).lstrip(b"/"), kind | mode, device=(major, minor))


def with_devices(entries: Sequence[Entry], devices: Sequence[Entry]) -> list[Entry]:
    """The entries and the devices, and the directories that these need and nobody has; BootError for a place that is taken."""
    by_name = {entry.name: entry for entry in entries}
    for device in devices:
        if device.name in by_name:
            raise BootError(f"{show(device.name)}: is there already: a device cannot be put in its place")
        parts = device.name.split(b"/")
        for end in range(1, len(parts)):
            parent = b"/".join(parts[:end])
            entry = by_name.setdefault(parent, Entry(parent, stat.S_IFDIR | _DIRECTORY_MODE))
            if not stat.S_ISDIR(entry.mode):
                raise BootError(f"{show(device.name)}: cannot be made: {show(parent)} is no directory")
        by_name[device.name] = device
    return list(by_name.values())


def _entry(name: bytes, path: bytes, status: os.stat_result) -> Entry:
    mode = status.st_mode
    if stat.S_ISLNK(mode):  # each on its own: Linux makes no hard links of symbolic ones
        return Entry(name, mode, os.readlink(path))
    if stat.S_ISDIR(mode):
        return Entry(name, mode)
    file = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
    if stat.S_ISREG(mode):
        return Entry(name, mode, HostFile(path, status.st_size), file=file)
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return Entry(name, mode, device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0), file=file)


def _unreadable(path: bytes | str, error: OSError) -> BootError:
    return BootError(f"{show(os.fsencode(path))}: cannot be read: {error.strerror}")
