"""The cache of kernels on a host that gives no room or no trust, with many processes, and when it is full."""

import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from caches import FILES, LONG_AGO, PLAIN, found, names, opened
from forge_elf import ENTRY, forge, load_segment
from host import without_privilege
from pvhboot.loader.cache import TEMPORARY, Cache, user_directory

# A host that gives no room, or less trust.


def make_foreign(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path belongs to another user than this process's."""
    if os.geteuid() == 0:
        os.chown(path, 4242, 4242)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)


def foreign_file(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in names(store):
        make_foreign(store / name, monkeypatch)


def symlink(store: Path, _: pytest.MonkeyPatch) -> None:
    store.rename(store.with_name("elsewhere"))
    store.symlink_to("elsewhere")


DISTRUST: dict[str, Callable[[Path, pytest.MonkeyPatch], object]] = {
    "another user's": make_foreign,
    "another user's files": foreign_file,
    "writable by others": lambda path, _: path.chmod(0o777),
    "writable by the group": lambda path, _: path.chmod(0o770),
    "a symlink": symlink,
}


@pytest.mark.usefixtures("no_race")
@pytest.mark.parametrize("distrust", DISTRUST)
@pytest.mark.parametrize("kind", ["relocatable", "bzImage"])
def test_what_another_user_could_have_written_is_not_looked_at(
    store: Path, kernel_file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch, kind: str, distrust: str
) -> None:
    path = kernel_file(FILES[kind])
    assert not found(store, path)
    assert found(store, path)
    DISTRUST[distrust](store, monkeypatch)
    assert not found(store, path)


@pytest.mark.parametrize("kind", ["relocatable", "bzImage"])
def test_a_cache_that_can_only_be_read_is_read(store: Path, kernel_file: Callable[..., Path], kind: str) -> None:
    path = kernel_file(FILES[kind])
    assert not found(store, path)
    before = names(store)
    store.chmod(0o500)
    with without_privilege():
        assert found(store, path)
        assert not found(store, kernel_file(FILES["gzip"], "another"))
    assert names(store) == before


@pytest.mark.parametrize("kind", ["relocatable", "bzImage"])
def test_where_no_cache_can_be_made_there_is_none(tmp_path: Path, kernel_file: Callable[..., Path], kind: str) -> None:
    path = kernel_file(FILES[kind])
    (tmp_path / "file").touch()
    (tmp_path / "closed").mkdir(0o500)
    with without_privilege():
        for store in (
            "/dev/null/cache",
            "/proc/cache",
            str(tmp_path / "file"),
            str(tmp_path / "file/x"),
            str(tmp_path / "closed/x/y"),
        ):
            cache = Cache(store)
            for _ in range(2):
                assert opened(path, cache) == opened(path)
            assert (cache.found, cache.stored) == (0, 0)


def test_no_directory_is_made_in_another_users(
    tmp_path: Path, kernel_file: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    make_foreign(home, monkeypatch)
    assert not found(home / ".cache" / "pvhboot", kernel_file(PLAIN))
    assert not names(home)


FULL = """
import resource, signal, sys
from pvhboot.loader.cache import Cache
from pvhboot.loader.kernel import Kernel
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), -1))
cache = Cache(sys.argv[2])
with Kernel.open(sys.argv[1], cache=cache) as kernel:
    print(hex(kernel.entry), cache.stored, kernel.descriptor is not None)
"""


@pytest.mark.parametrize(
    ("kind", "room", "said"),
    [
        ("plain", 20, f"{ENTRY:#x} 0 True\n"),
        ("bzImage", 0, f"{ENTRY:#x} 0 False\n"),
        ("bzImage", 100, f"{ENTRY:#x} 0 False\n"),  # for half of the image
    ],
)
def test_a_full_disk_costs_nothing_but_the_cache(
    store: Path, kernel_file: Callable[[bytes], Path], kind: str, room: int, said: str
) -> None:
    path = kernel_file(FILES[kind])
    line = [sys.executable, "-c", FULL, str(path), str(store), str(room)]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == said
    assert not [name for name in names(store) if name.startswith(TEMPORARY)]
    assert not found(store, path)
    assert found(store, path)


# Many at once, and one that dies.

KILLED = """
import os, signal, sys
from pvhboot.loader.cache import Cache
from pvhboot.loader.kernel import Kernel
left = int(sys.argv[3])
rename = os.rename
def killed(*arguments, **how):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    rename(*arguments, **how)
os.rename = killed
Kernel.open(sys.argv[1], cache=Cache(sys.argv[2]))
"""


@pytest.mark.parametrize(("kind", "renames"), [("plain", 0), ("bzImage", 0), ("bzImage", 1)])
def test_who_is_killed_while_writing_leaves_nothing_that_is_used(
    store: Path, kernel_file: Callable[[bytes], Path], kind: str, renames: int
) -> None:
    path = kernel_file(FILES[kind])
    line = [sys.executable, "-c", KILLED, str(path), str(store), str(renames)]
    assert subprocess.run(line, check=False).returncode == -signal.SIGKILL
    (left,) = [name for name in names(store) if name.startswith(TEMPORARY)]
    assert not found(store, path)
    assert found(store, path)
    os.utime(store / left, (LONG_AGO, LONG_AGO))
    assert not found(store, kernel_file(FILES["gzip"]))  # who stores something next clears up
    assert left not in names(store)


MANY = """
import hashlib, sys
from pvhboot.loader.cache import Cache
from pvhboot.loader.kernel import Kernel
cache = Cache(sys.argv[1], limit=int(sys.argv[2]))
for _ in range(30):
    for path in sys.argv[3:]:
        with Kernel.open(path, cache=cache) as kernel:
            data = bytearray(kernel.image_size)
            kernel.read_into(0, memoryview(data))
            print(path, kernel.kind, hex(kernel.entry), hashlib.sha256(data).hexdigest())
"""


@pytest.mark.parametrize("limit", [1 << 20, 5000])
def test_many_processes_share_it(store: Path, kernel_file: Callable[..., Path], limit: int) -> None:
    """With little room each throws out what another one has just written."""
    paths = [kernel_file(data, kind.replace(" ", "-")) for kind, data in FILES.items()]
    line = [sys.executable, "-c", MANY, str(store), str(limit), *map(str, paths)]
    processes = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = {line for process in processes for line in process.communicate()[0].splitlines()}
    assert [process.returncode for process in processes] == [0] * 4
    assert len(told) == len(paths)
    assert not [name for name in names(store) if name.startswith(TEMPORARY)]


# Its size.


def entries(store: Path) -> set[str]:
    return {name.removesuffix(".elf") for name in names(store)}


@pytest.fixture
def many(kernel_file: Callable[..., Path]) -> list[Path]:
    """Kernels of which each is compressed, and has 64 KiB."""
    return [
        kernel_file(gzip.compress(forge(loads=(load_segment(data=bytes([n]) * 65536, memsz=65536),))), f"{n}") for n in range(6)
    ]


@pytest.mark.parametrize(("limit", "files", "kept"), [(200_000, 99, 2), (300_000, 99, 4), (1 << 20, 5, 2), (1 << 20, 6, 3)])
def test_what_was_used_longest_ago_is_removed(store: Path, many: list[Path], limit: int, files: int, kept: int) -> None:
    cache = Cache(str(store), limit, files)
    order: list[str] = []
    for number, path in enumerate(many):
        before = entries(store)
        opened(path, cache)
        (new,) = entries(store) - before
        order.append(new)
        os.utime(store / new, (LONG_AGO + number, LONG_AGO + number))
    assert entries(store) == set(order[-kept:])
    oldest = many[-kept]
    assert opened(oldest, cache) == opened(oldest)  # is used again, and so the youngest
    assert cache.found == 1
    opened(many[0], cache)
    assert order[-kept] in entries(store)
    assert order[1 - kept] not in entries(store) or kept == 1


def test_what_is_larger_than_the_cache_does_not_go_into_it(store: Path, many: list[Path]) -> None:
    cache = Cache(str(store), 60_000)
    assert opened(many[0], cache) == opened(many[0])
    assert cache.stored == 0
    assert not names(store)


def test_nothing_is_removed_but_kernels(store: Path, many: list[Path]) -> None:
    store.mkdir(parents=True)
    mine = store / "thesis.tex"
    mine.write_bytes(bytes(1 << 20))
    os.utime(mine, (0, 0))
    for path in many:
        opened(path, Cache(str(store), 200_000, 3))
    assert mine.exists()


# Where it is.


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/pvhboot/kernels"),
        ({"HOME": "/h"}, "/h/.cache/pvhboot/kernels"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/pvhboot/kernels"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/pvhboot/kernels"),  # the specification wants that ignored
        ({"HOME": ""}, None),
        ({"HOME": "relative"}, None),
        ({}, None),
    ],
)
def test_where_the_users_cache_is(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], where: str | None) -> None:
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert user_directory() == where


def test_what_is_made_is_the_users_alone(store: Path, kernel_file: Callable[[bytes], Path]) -> None:
    before = os.umask(0)
    try:
        assert not found(store, kernel_file(FILES["gzip"]))
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (store, store.parent)} == {0o700}
    assert {path.stat().st_mode & 0o177 for path in store.iterdir()} == {0}
