"""The cache of kernels: what comes out of it is what would be read, whatever becomes of the kernel."""

import gzip
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from caches import FILES, LONG_AGO, OTHER, PLAIN, RELOCATABLE, WRAPPED, facts, found, names, opened
from forge_elf import ENTRY, HOSTILE, patch_bytes
from hypothesis import given
from hypothesis import strategies as st
from pvhboot.loader import cache as cache_module
from pvhboot.loader.cache import RACY, Cache
from pvhboot.loader.image import FileImage
from pvhboot.loader.kernel import Kernel
from pvhboot.shim.errors import BootError

# What it is for.


@pytest.mark.parametrize("kind", FILES)
def test_what_comes_out_is_what_was_read(store: Path, kernel_file: Callable[[bytes], Path], kind: str) -> None:
    path = kernel_file(FILES[kind])
    cache = Cache(str(store))
    want = opened(path)
    for number in range(3):
        assert opened(path, cache) == want
        assert (cache.stored, cache.found) == (1, number)


@pytest.mark.parametrize("kind", FILES)
def test_the_second_time_nothing_is_proven_and_nothing_unpacked(
    store: Path, kernel_file: Callable[[bytes], Path], kind: str
) -> None:
    path = kernel_file(FILES[kind])
    opened(path, Cache(str(store)))
    code = (
        "import sys; from pvhboot.loader.cache import Cache; from pvhboot.loader.kernel import Kernel;"
        "Kernel.open(sys.argv[1], cache=Cache(sys.argv[2])).close(); print(*sys.modules)"
    )
    line = [sys.executable, "-c", code, str(path), str(store)]
    modules = set(subprocess.run(line, capture_output=True, text=True, check=True).stdout.split())
    unused = ("elf", "notes", "examination", "symbols")
    assert not {"elftools", *(f"pvhboot.loader.{name}" for name in unused)} & modules
    # Of a kernel that was written just now the digest is computed anew, and only for a compressed file.
    assert ("hashlib" in modules) == (kind in WRAPPED)


@pytest.mark.parametrize("kind", WRAPPED)
def test_an_unpacked_kernel_is_a_file(store: Path, kernel_file: Callable[[bytes], Path], kind: str) -> None:
    path = kernel_file(FILES[kind])
    cache = Cache(str(store))
    for _ in range(2):
        with Kernel.open(path, cache=cache) as kernel:
            assert kernel.descriptor is not None
            assert os.fstat(kernel.descriptor).st_mode & 0o777 == 0o400
            read = subprocess.run(["cat", kernel.image_path], capture_output=True, check=True).stdout  # by another process
            assert read == (PLAIN if kind == "gzip" else RELOCATABLE)
    with Kernel.open(path) as kernel:
        assert kernel.descriptor is None


def test_a_kernel_in_memory_is_cached_too(store: Path) -> None:
    for data in FILES.values():
        cache = Cache(str(store))
        for _ in range(2):
            with Kernel.from_bytes(data, "k", cache=cache) as kernel, Kernel.from_bytes(data, "k") as plain:
                assert facts(kernel) == facts(plain)
        assert (cache.stored, cache.found) == (1, 1)


def test_the_same_content_under_another_name_is_found(store: Path, kernel_file: Callable[..., Path]) -> None:
    for data in FILES.values():
        opened(kernel_file(data), Cache(str(store)))
        assert found(store, kernel_file(data, "copy"))


def test_without_being_asked_nothing_is_cached(
    kernel_file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    opened(kernel_file(FILES["gzip"]))
    assert not (tmp_path / "cache").exists()


def test_progress_is_of_what_is_unpacked(store: Path, kernel_file: Callable[[bytes], Path]) -> None:
    path, calls = kernel_file(FILES["gzip"]), []
    for _ in range(2):
        Kernel.open(path, lambda done, total: calls.append((done, total)), cache=Cache(str(store))).close()
        assert calls == [(len(FILES["gzip"]),) * 2]


@pytest.mark.parametrize("name", ["vmlinux-6.1", "vmlinuz-6.1", "vmlinuz-6.12"])
def test_a_real_kernel(store: Path, guest_file: Callable[[str], Path], name: str) -> None:
    path = guest_file(name)
    cache = Cache(str(store))
    want = opened(path)
    assert opened(path, cache) == want
    assert opened(path, cache) == want
    assert (cache.stored, cache.found) == (1, 1)
    assert max(len((store / name).read_bytes()) for name in names(store) if not name.endswith(".elf")) < 4096


# A kernel that is no kernel.


# That of a gzip bomb takes seconds, with a cache and without.
REFUSED = [one for one in HOSTILE if one[0] != "gzip-bomb"]


@pytest.mark.parametrize(("data", "why"), [(make(), why) for _, make, why in REFUSED], ids=[name for name, _, _ in REFUSED])
def test_what_is_refused_is_refused_alike_and_not_cached(
    store: Path, kernel_file: Callable[[bytes], Path], data: bytes, why: str
) -> None:
    path = kernel_file(data)
    said = []
    for cache in (None, Cache(str(store))):
        with pytest.raises(BootError, match=why) as error:
            Kernel.open(path, cache=cache)
        said.append(str(error.value))
    assert len(set(said)) == 1
    assert not [name for name in names(store) if "memo" not in name]


# A kernel that changes.


def test_two_kernels_that_begin_alike_are_not_mistaken_for_each_other(store: Path, kernel_file: Callable[..., Path]) -> None:
    assert len(PLAIN) == len(OTHER)
    paths = kernel_file(PLAIN, "one"), kernel_file(OTHER, "other")
    for _ in range(2):
        for path in paths:
            assert not found(store, path)  # they have the place of one
    assert found(store, paths[1])


@given(st.sampled_from(["plain", "relocatable", "entry in a section"]), st.data())
def test_whatever_is_changed_in_a_kernel_is_seen(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    """Its bytes are drawn where they matter, and elsewhere."""
    before = FILES[kind]
    root = tmp_path_factory.mktemp("changed")
    path, cache = root / "kernel", Cache(str(root / "cache"))
    path.write_bytes(before)
    opened(path, cache)
    at = data.draw(st.integers(0, len(before) - 1))
    path.write_bytes(patch_bytes(before, at, bytes([before[at] ^ data.draw(st.integers(1, 255))])))
    results = []
    for one in (None, cache, cache):
        try:
            results.append(opened(path, one))
        except BootError as error:
            results.append((str(error),))
    assert results[0] == results[1] == results[2]


def test_a_compressed_kernel_that_was_changed_a_moment_ago_is_hashed(
    store: Path, kernel_file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kernel_file(FILES["gzip"])
    assert not found(store, path)
    assert not [name for name in names(store) if "memo" in name]
    now = time.time_ns()
    for offset, remembered in ((RACY // 2, False), (-RACY, False), (RACY + 10**9, True)):  # changed now, in future, and before
        monkeypatch.setattr(cache_module.time, "time_ns", lambda offset=offset: now + offset)
        assert found(store, path)
        assert bool([name for name in names(store) if "memo" in name]) == remembered


def test_how_long_it_takes_to_read_a_kernel_makes_its_last_change_no_older(
    store: Path, kernel_file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, read_into = time.time_ns(), FileImage.read_into

    def slow(self: FileImage, offset: int, buffer: memoryview) -> None:
        read_into(self, offset, buffer)
        monkeypatch.setattr(cache_module.time, "time_ns", lambda: now + 2 * RACY)

    monkeypatch.setattr(cache_module.time, "time_ns", lambda: now)
    monkeypatch.setattr(FileImage, "read", lambda self, offset, size: os.pread(self.descriptor, size, offset))
    monkeypatch.setattr(FileImage, "read_into", slow)
    assert not found(store, kernel_file(FILES["gzip"]))
    assert not [name for name in names(store) if "memo" in name]


@pytest.mark.usefixtures("no_race")
def test_a_digest_is_remembered_as_long_as_the_file_is_the_same(
    store: Path, kernel_file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kernel_file(FILES["gzip"])
    assert not found(store, path)
    monkeypatch.setitem(sys.modules, "hashlib", None)
    assert found(store, path)
    os.utime(path, (LONG_AGO, LONG_AGO))  # which changes the time of the last change
    with pytest.raises(ImportError):
        opened(path, Cache(str(store)))


@pytest.mark.usefixtures("no_race")
def test_a_compressed_kernel_that_was_replaced_is_another_one(store: Path, kernel_file: Callable[[bytes], Path]) -> None:
    one, other = FILES["gzip"], gzip.compress(OTHER)
    size = max(len(one), len(other))
    path = kernel_file(one.ljust(size, b"\0"))
    before = os.stat(path)
    assert not found(store, path)
    path.write_bytes(other.ljust(size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (os.stat(path).st_ino, os.stat(path).st_size, os.stat(path).st_mtime_ns) == (before.st_ino, size, before.st_mtime_ns)
    assert not found(store, path)
    assert found(store, path)


def test_a_kernel_that_changes_while_it_is_read_is_not_remembered_wrongly(
    store: Path, kernel_file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its hash and its unpacking it becomes another one."""
    path = kernel_file(FILES["gzip"])
    keep = Cache._unpacked

    def replaced(self: Cache, digest: str) -> object:
        path.write_bytes(gzip.compress(OTHER))
        return keep(self, digest)

    monkeypatch.setattr(Cache, "_unpacked", replaced)
    cache = Cache(str(store))
    with Kernel.open(path, cache=cache) as kernel:
        assert kernel.entry == ENTRY
    monkeypatch.undo()
    assert not found(store, path)
    assert found(store, kernel_file(FILES["gzip"]))
