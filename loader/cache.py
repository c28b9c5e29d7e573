"""A directory of kernels that were unpacked and proven before, so that they are not again.

An uncompressed kernel is known by the bytes that its proof has read: an entry repeats them, and holds of each file that has
them where they were. Nothing more of the file is read, and nobody's clock is trusted. A compressed one is known by the SHA-256
of the whole file; beside its entry lies the unpacked image, which is mapped like any vmlinux. So that even the digest is not
computed each time, a memo keeps it by the file's device, number, size and times, as git's index does: a file that was changed
less than RACY before it was read is not remembered.

Whatever is wrong with the directory or with a file in it, the kernel is read as if there were no cache. Only what belongs to
this user, and nobody else can write to, is looked at. Files come into being under another name and are renamed: a reader sees
all of one or none.
"""

import os
import stat
import time
from binascii import crc32
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from pvhboot.shim.abi.elf import ELF_MAGIC
from pvhboot.shim.errors import BootError
from pvhboot.shim.version import VERSION

from .cache_entry import FORMAT, NO_FILE, PACKED_MAX, Entry, Read, Stamp, pack, pack_memo, unpack, unpack_memo
from .facts import Facts
from .image import BytesImage, FileImage, OpenImage, read_head

LIMIT: Final = 1 << 30  # bytes of all files together
FILES_MAX: Final = 512
RACY: Final = 2_000_000_000  # ns; the coarsest times of a file that are in use are those of FAT
TEMPORARY: Final = "kernel-tmp-"  # begins the name of what is being written

_KERNEL: Final = "kernel-"  # begins the names of all files: nothing else is ever removed
_PREFIX: Final = f"{_KERNEL}{VERSION}-{FORMAT}-"  # another version may find other files fit
_IMAGE: Final = ".elf"  # ends the name of an unpacked image, which else is that of its entry
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_HOUR: Final = 3600  # seconds: who uses an entry says so this often, and who writes one is dead after it


class Opened(NamedTuple):
    """A kernel's uncompressed image, how it was wrapped (Wrapping.prefix), and what it was proven to hold, by what `reads`."""

    image: OpenImage
    prefix: str
    facts: Facts
    reads: tuple[Read, ...]


class Cache:
    """The kernels in one directory. It need not be there: it is made when there is something to put into it.

    `directory` is its path; `found` and `stored` count the kernels that came out of it, and went into it.
    """

    def __init__(self, directory: str, limit: int = LIMIT, files_max: int = FILES_MAX) -> None:
        """`limit` in bytes."""
        self.directory = os.path.abspath(directory)
        self._limit = limit
        self._files_max = files_max
        self.found = self.stored = 0

    def open(self, file: OpenImage, read: Callable[[OpenImage], Opened]) -> Opened:
        """What `read` gives for the file, which it is not asked for if that is known. The image is another one than the file if
        that was compressed, and the caller's to close in any case. Raises what `read` does."""
        head = read_head(file)
        if head.startswith(ELF_MAGIC):
            return self._plain(file, head, read)
        return self._wrapped(file, head, read)

    def _plain(self, file: OpenImage, head: bytes, read: Callable[[OpenImage], Opened]) -> Opened:
        """Of an ELF file the beginning names the entry: no other file that begins so has an entry of its own beside it."""
        name = f"{_PREFIX}{crc32(head):08x}-{file.size:x}"
        entry = self._entry(name)
        if entry is not None and entry.stamp == NO_FILE and entry.holds_of(file):
            self.found += 1
            return Opened(file, entry.prefix, entry.facts, entry.reads)
        opened = read(file)
        self._store(name, Entry(opened.prefix, file.size, opened.facts, opened.reads))
        return opened

    def _wrapped(self, file: OpenImage, head: bytes, read: Callable[[OpenImage], Opened]) -> Opened:
        memo = self._memo(file)
        if memo is not None and (opened := self._unpacked(memo)):
            return opened
        from .wrapping import is_wrapped

        if not is_wrapped(head) or file.size > self._limit // 4:
            return read(file)
        from hashlib import sha256

        before, settled = _stamp(file), time.time_ns() - RACY
        data = bytearray(file.size)  # what is hashed is what is unpacked: the file may change in between
        file.read_into(0, memoryview(data))
        digest = sha256(data).hexdigest()
        if before != NO_FILE and before == _stamp(file) and max(before.mtime, before.ctime) < settled:
            self._remember(file, before, digest)
        return self._unpacked(digest) or self._keep(digest, read(BytesImage(data)))

    def _unpacked(self, digest: str) -> Opened | None:
        """What is there of the file with that digest."""
        name = _PREFIX + digest
        entry = self._entry(name)
        if entry is None or (image := self._image(name + _IMAGE)) is None:
            return None
        try:
            if _stamp(image) == entry.stamp and entry.holds_of(image):
                self.found += 1
                return Opened(image, entry.prefix, entry.facts, entry.reads)
        except BootError:  # it was truncated a moment ago
            pass
        image.close()
        return None

    def _keep(self, digest: str, opened: Opened) -> Opened:
        """Writes image and entry. The same, but of the file that was written, if that could be."""
        assert isinstance(opened.image, BytesImage)  # whatever has been unpacked
        name, size = _PREFIX + digest, opened.image.size
        entry = Entry(opened.prefix, size, opened.facts, opened.reads)
        if size > self._limit or pack(entry) is None:
            return opened
        image = None
        with suppress(OSError), self._writing() as directory:
            _write(directory, name + _IMAGE, opened.image.view, 0o400)
            image = self._image(name + _IMAGE)
        if image is None:
            return opened
        self._store(name, entry._replace(stamp=_stamp(image)))
        opened.image.close()
        return opened._replace(image=image)

    def _memo(self, file: OpenImage) -> str | None:
        stamp = _stamp(file)
        if stamp == NO_FILE or (data := self._read(_memo_name(file))) is None:
            return None
        return unpack_memo(data, stamp)

    def _remember(self, file: OpenImage, stamp: Stamp, digest: str) -> None:
        with suppress(OSError), self._writing() as directory:
            _write(directory, _memo_name(file), pack_memo(stamp, digest), 0o600)

    def _entry(self, name: str) -> Entry | None:
        data = self._read(name)
        return None if data is None else unpack(data)

    def _store(self, name: str, entry: Entry) -> None:
        data = pack(entry)
        if data is not None:
            with suppress(OSError), self._writing() as directory:
                _write(directory, name, data, 0o600)
                self.stored += 1
                self._shrink(directory)

    def _image(self, name: str) -> FileImage | None:
        descriptor = self._open(name)
        return None if descriptor is None else FileImage.of(descriptor)

    def _read(self, name: str) -> bytes | None:
        """A small file of the cache; None if there is none, or it is not to be trusted. Its time becomes that of its use."""
        descriptor = self._open(name)
        if descriptor is None:
            return None
        with open(descriptor, "rb") as file:
            if os.fstat(descriptor).st_mtime < time.time() - _HOUR:
                with suppress(OSError):
                    os.utime(descriptor)
            with suppress(OSError):
                return file.read(PACKED_MAX)
        return None

    def _open(self, name: str) -> int | None:
        """A descriptor of a file of the cache; None if there is none, or it is not to be trusted."""
        with suppress(OSError), self._directory() as directory:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            if _is_trusted(os.fstat(descriptor), stat.S_IFREG):
                return descriptor
            os.close(descriptor)
        return None

    @contextmanager
    def _directory(self) -> Iterator[int]:
        """A descriptor of the directory; OSError if there is none, or it is not to be trusted."""
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not _is_trusted(os.fstat(descriptor), stat.S_IFDIR):
                raise PermissionError
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _writing(self) -> Iterator[int]:
        """As _directory, which is made if there is none."""
        if not os.path.isdir(self.directory):
            _make_directory(self.directory)
        with self._directory() as directory:
            yield directory

    def _shrink(self, directory: int) -> None:
        """Removes what was used longest ago, until limits are kept, and what was never written to its end."""
        dead = time.time() - _HOUR
        groups: dict[str, list[tuple[str, os.stat_result]]] = {}  # an image is as old as its entry
        with os.scandir(directory) as found:
            for one in found:
                if one.name.startswith(_KERNEL):
                    groups.setdefault(one.name.removesuffix(_IMAGE), []).append((one.name, one.stat(follow_symlinks=False)))
        size = count = 0
        for group in sorted(groups.values(), key=lambda group: max(status.st_mtime for _, status in group), reverse=True):
            size += sum(status.st_size for _, status in group)
            count += len(group)
            for name, status in group:
                if size > self._limit or count > self._files_max or (name.startswith(TEMPORARY) and status.st_mtime < dead):
                    with suppress(OSError):
                        os.unlink(name, dir_fd=directory)


def user_directory() -> str | None:
    """Where the kernels of this user are kept, by the XDG Base Directory Specification; None without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = os.environ.get("HOME", "")
        if not os.path.isabs(home):
            return None
        base = os.path.join(home, ".cache")
    return os.path.join(base, "pvhboot", "kernels")


def _is_trusted(status: os.stat_result, kind: int) -> bool:
    """Of this kind, of this user, and nobody else can write to it."""
    return stat.S_IFMT(status.st_mode) == kind and status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE


def _make_directory(path: str) -> None:
    """With those above it. OSError if it cannot be, or if it would come to lie in another user's: root at work for somebody is
    not to leave behind what they cannot use."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make_directory(parent)
    if os.stat(parent).st_uid not in (os.geteuid(), 0):
        raise PermissionError
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)


def _write(directory: int, name: str, data: bytes | memoryview, mode: int) -> None:
    """A new file, which takes the place of another one of that name only when it is complete."""
    temporary = f"{TEMPORARY}{os.getpid()}-{os.urandom(8).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=directory)
    try:
        with open(descriptor, "wb", buffering=0) as file:
            while data:
                data = data[file.write(data) :]
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise


def _stamp(file: OpenImage) -> Stamp:
    """Of an open file; NO_FILE of what is none."""
    if file.descriptor is None:
        return NO_FILE
    status = os.fstat(file.descriptor)
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _memo_name(file: OpenImage) -> str:
    assert file.descriptor is not None
    status = os.fstat(file.descriptor)
    return f"{_PREFIX}memo-{status.st_dev:x}-{status.st_ino:x}"
