"""The cache of kernels when its files are damaged: what cannot be trusted is not used, and is replaced."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from caches import FILES, WRAPPED, found, names
from hypothesis import given
from hypothesis import strategies as st
from pvhboot.loader import cache_entry
from pvhboot.loader.cache_entry import PACKED_MAX, Entry, Read, Stamp, pack, pack_memo, unpack, unpack_memo
from pvhboot.loader.facts import Facts, KernelSegment, Note
from pvhboot.shim.abi.pvh import Relocation
from pvhboot.shim.machines import MIB

# A cache that was damaged.


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    rewrite(path, bytes(data))


def rewrite(path: Path, data: bytes) -> None:
    """In place, and as if nothing had happened."""
    status = os.stat(path)
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path, make: Callable[[Path], object]) -> None:
    path.rename(path.with_name("aside"))
    make(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: rewrite(path, b""),
    "half": lambda path: rewrite(path, path.read_bytes()[: path.stat().st_size // 2]),
    "longer": lambda path: rewrite(path, path.read_bytes() + b"\0"),
    "large": lambda path: rewrite(path, path.read_bytes() + bytes(2 * PACKED_MAX)),
    "zeros": lambda path: rewrite(path, bytes(path.stat().st_size)),
    "first byte": lambda path: flip(path, 0),
    "middle byte": lambda path: flip(path, path.stat().st_size // 2),
    "last byte": lambda path: flip(path, -1),
    "gone": Path.unlink,
    "a symlink": lambda path: replace(path, lambda path: path.symlink_to("aside")),
    "dangling": lambda path: replace(path, lambda path: path.symlink_to("nowhere")),
    "a FIFO": lambda path: replace(path, os.mkfifo),
    "writable by others": lambda path: path.chmod(0o622),
    "writable by the group": lambda path: path.chmod(0o660),
}


@pytest.mark.usefixtures("no_race")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["relocatable", "bzImage"])
def test_what_is_damaged_is_not_used_and_is_replaced(
    store: Path, kernel_file: Callable[[bytes], Path], kind: str, damage: str
) -> None:
    path = kernel_file(FILES[kind])
    assert not found(store, path)
    files = names(store)
    assert len(files) == (3 if kind in WRAPPED else 1)
    for name in files:
        DAMAGES[damage](store / name)
        assert found(store, path) == ("memo" in name)  # without it the digest is computed
        assert found(store, path), f"{name} was not replaced"
        (store / "aside").unlink(missing_ok=True)
        assert names(store) == files


def test_a_directory_in_the_place_of_a_file_is_left_alone(store: Path, kernel_file: Callable[[bytes], Path]) -> None:
    path = kernel_file(FILES["gzip"])
    assert not found(store, path)
    for name in names(store):
        (store / name).unlink()
        (store / name).mkdir()
        assert not found(store, path)


ENTRY_OF = Entry(
    "gzip of ",
    0x5000,
    Facts(
        64,
        (KernelSegment(MIB, 0x1000, 0x2000, 0x3000, 5), KernelSegment(2 * MIB, 0x3000, 0x2000, 0x2000, 6)),
        MIB + 1,
        1 << 63,
        (Note(b"Xen\0", 18, b"\1\0\x10\0", "PT_NOTE 0"), Note(b"", 7, b"", "section .überlang")),
        Relocation(4096, 0, 0xFFFFFFFF),
    ),
    (Read(0, b"\x7fELF"), Read(0x4FFF, b"x"), Read(7, b"")),
    Stamp(1, 2, 3, (1 << 64) - 1),
)


def with_facts(**changed: object) -> Entry:
    return ENTRY_OF._replace(facts=ENTRY_OF.facts._replace(**changed))


def with_segment(**changed: object) -> Entry:
    first, second = ENTRY_OF.facts.segments
    return with_facts(segments=(first, second._replace(**changed)))


@pytest.mark.parametrize(
    "entry",
    [
        with_segment(offset=0x3001),  # reaches beyond the image
        with_segment(offset=(1 << 64) - 1),
        with_segment(filesz=0x2001, memsz=0x2001),
        with_segment(memsz=0x1FFF),  # less than is in the file
        with_segment(paddr=MIB + 0x2FFF),  # overlaps the first
        with_segment(paddr=0),  # not in order
        with_segment(paddr=(1 << 64) - 0x1FFF),  # no address
        with_facts(bits=16),
        with_facts(entry=3 * MIB),  # in no segment
        with_facts(segments=()),
        ENTRY_OF._replace(reads=(Read(0x5000, b"x"),)),
        ENTRY_OF._replace(size=0x4FFF),
    ],
)
def test_what_cannot_be_is_not_believed_though_its_check_sum_is_right(entry: Entry) -> None:
    data = pack(entry)
    assert data is not None
    assert unpack(data) is None


def test_an_entry_goes_through_bytes() -> None:
    for entry in (ENTRY_OF, with_facts(relocation=None), with_facts(notes=()), ENTRY_OF._replace(prefix="", reads=())):
        data = pack(entry)
        assert data is not None
        assert unpack(data) == entry
    assert pack(ENTRY_OF._replace(reads=(Read(0, bytes(PACKED_MAX)),))) is None


@given(st.data())
def test_garbled_bytes_are_no_entry_or_one_that_could_be(data: st.DataObject) -> None:
    """Whoever garbles them even gets the check sum right."""
    whole = pack(ENTRY_OF)
    assert whole is not None
    body = bytearray(cache_entry._opened(whole) or b"")
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)) | st.just(len(body)))
    entry = unpack(cache_entry._sealed(bytes(body[:cut])))
    if entry is not None:
        assert all(one.offset + one.filesz <= entry.size for one in entry.facts.segments)
    assert unpack(data.draw(st.binary(max_size=200))) is None


def test_a_memo_is_of_one_state_of_a_file() -> None:
    stamp = Stamp(1, 2, 3, 4)
    data = pack_memo(stamp, "ab" * 32)
    assert unpack_memo(data, stamp) == "ab" * 32
    for field in Stamp._fields:
        assert unpack_memo(data, stamp._replace(**{field: 5})) is None
    assert unpack_memo(data[:-1], stamp) is None
    assert unpack_memo(pack(ENTRY_OF) or b"", stamp) is None
    assert unpack(data) is None
