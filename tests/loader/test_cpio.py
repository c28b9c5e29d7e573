"""Archives: what is written is newc to the letter, and the same from the same tree; what Linux would not unpack is refused."""

import contextlib
import lzma
import os
import random
import stat
import struct

import lz4.frame
import pytest
from host import without_privilege
from hypothesis import given
from hypothesis import strategies as st
from newc import read_newc
from pvhboot.loader import initramfs
from pvhboot.loader.codecs import CODECS
from pvhboot.loader.cpio import Entry, Follower, archive
from pvhboot.loader.image import BytesImage
from pvhboot.loader.initramfs import Buffer, Existing, survey
from pvhboot.loader.packing import PACKED_BY, compress, make_packer
from pvhboot.loader.tree import parse_device, read_tree, with_devices
from pvhboot.shim.errors import BootError

FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
LINUX_TAKES = ("gzip", "bzip2", "lzma", "xz", "lz4", "zstd")


def joined(*entries, **more):
    return b"".join(archive(entries, **more))


def members(*entries, **more):
    *found, trailer = read_newc(joined(*entries, **more))
    assert trailer[1:] == (b"", 0, 0, 0, 0, 1, 0, 0, 0, 0, 0)
    return found


# Writing.


def test_one_file_to_the_byte():
    assert (
        joined(Entry(b"etc", FILE, b"hello"), mtime=0x12345678)
        == (
            b"070701"
            b"00000001000081a4000000000000000000000001"  # inode, mode, uid, gid, links
            b"12345678000000050000000000000000"  # mtime, size, device
            b"00000000000000000000000400000000"  # device of a node, length of the name, checksum
            b"etc\0\0\0hello\0\0\0"
            b"070701"
            b"0000000000000000000000000000000000000001"
            b"00000000000000000000000000000000"
            b"0000000000000000" + b"0000000b00000000"
            b"TRAILER!!!\0\0\0\0"
        )
    )


def test_entries_are_sorted_by_bytes_and_a_directory_comes_before_what_is_in_it():
    names = [b"a/z", b"a-b", b"a", b"\xff", b"B", b"a/\xc3\xa4"]
    found = members(*(Entry(name, DIRECTORY if name == b"a" else FILE) for name in names))
    assert [member.name for member in found] == [b"B", b"a", b"a-b", b"a/z", b"a/\xc3\xa4", b"\xff"]
    assert [member.ino for member in found] == list(range(1, 7))


@pytest.mark.parametrize("size", range(6))
def test_all_is_padded_to_four_bytes(size):
    for length in range(1, 6):
        (found, other) = members(Entry(b"n" * length, FILE, b"d" * size), Entry(b"z", FILE, b"more"))
        assert (found.name, found.data, other.data) == (b"n" * length, b"d" * size, b"more")


def test_the_last_name_of_a_file_carries_its_data():
    """usr/gen_init_cpio.c says so in as many words; the kernel makes the links of those before."""
    entries = [Entry(name, FILE, b"data", file=(1, 77)) for name in (b"c", b"a", b"b")]
    found = members(*entries, Entry(b"aa", FILE, b"own"), Entry(b"d", FILE, b"x", file=(2, 77)))
    assert [(member.name, member.data, member.nlink, member.ino) for member in found] == [
        (b"a", b"", 3, 1),
        (b"aa", b"own", 1, 2),
        (b"b", b"", 3, 1),
        (b"c", b"data", 3, 1),
        (b"d", b"x", 1, 3),
    ]


def test_nodes_links_and_directories():
    fifo, socket, disk = stat.S_IFIFO | 0o600, stat.S_IFSOCK | 0o700, stat.S_IFBLK | 0o660
    found = members(
        Entry(b"d", DIRECTORY),
        Entry(b"d/disk", disk, device=(254, 0x12345)),
        Entry(b"d/fifo", fifo),
        Entry(b"d/link", LINK, b"../else where"),
        Entry(b"d/socket", socket),
    )
    assert [(member.mode, member.nlink, member.data, member.rmaj, member.rmin) for member in found] == [
        (DIRECTORY, 2, b"", 0, 0),
        (disk, 1, b"", 254, 0x12345),
        (fifo, 1, b"", 0, 0),
        (LINK, 1, b"../else where", 0, 0),
        (socket, 1, b"", 0, 0),
    ]
    assert {member[4:6] + member[8:10] for member in found} == {(0, 0, 0, 0)}  # owner, and the host's device


class Huge:
    size = 1 << 32

    def chunks(self):
        raise AssertionError


REFUSED = {
    "absolute": ([Entry(b"/etc", FILE)], "cannot be archived"),
    "parent": ([Entry(b"a/../b", FILE)], "cannot be archived"),
    "dot": ([Entry(b".", DIRECTORY)], "cannot be archived"),
    "empty": ([Entry(b"", FILE)], "an empty name"),
    "nul": ([Entry(b"a\0b", FILE)], r"a\\x00b: cannot be archived"),
    "trailer": ([Entry(b"TRAILER!!!", FILE)], "ends an archive"),
    "newline": ([Entry(b"a\nb/", FILE)], r"^a\\nb/: cannot"),
    "long": ([Entry(b"a/" * 2047 + b"bc", FILE)], "a name of 4096 bytes: Linux takes 4095"),
    "twice": ([Entry(b"a", FILE), Entry(b"b", FILE), Entry(b"a", DIRECTORY)], "a: is to be archived twice"),
    "huge": ([Entry(b"a", FILE, Huge())], "4294967296 bytes.*less than 4 GiB"),
    "link-to-nothing": ([Entry(b"a", LINK)], "a path of 0 bytes"),
    "link-too-long": ([Entry(b"a", LINK, b"x" * 4096)], "a path of 4096 bytes"),
}


@pytest.mark.parametrize(("entries", "message"), REFUSED.values(), ids=REFUSED)
def test_what_linux_would_not_take_is_refused(entries, message):
    with pytest.raises(BootError, match=message):
        joined(*entries)


def test_the_longest_name_and_target_are_taken():
    name = b"a/" * 2047 + b"b"
    assert members(Entry(name, LINK, b"x" * 4095))[0].data == b"x" * 4095


def test_the_order_of_the_entries_does_not_matter():
    entries = [Entry(b"%d" % number, FILE, b"same", file=(1, number // 3)) for number in range(12)]
    shuffled = random.Random(1).sample(entries, len(entries))
    assert joined(*entries) == joined(*shuffled)


# A tree of the host.


@pytest.fixture
def tree(tmp_path):
    """A tree with one of each kind that needs no root."""
    root = tmp_path / "tree"
    for directory in ("bin", "etc/deep", "tmp", "empty"):
        (root / directory).mkdir(parents=True, mode=0o755)
    (root / "tmp").chmod(0o1777)
    (root / "bin/one").write_bytes(b"program" * 1000)
    (root / "bin/one").chmod(0o4755)
    os.link(root / "bin/one", root / "bin/another")
    (root / "bin/sh").symlink_to("one")
    (root / "etc/loop").symlink_to("..")
    (root / "etc/broken").symlink_to("/no/such")
    (root / os.fsdecode(b"etc/deep/\xff\n")).write_bytes(b"odd")
    (root / "etc/deep/none").touch(0o600)
    os.mkfifo(root / "etc/fifo", 0o640)
    return root


def facts(root):
    """What is to be archived, found by os.walk."""
    found = {}
    for top, directories, files in os.walk(os.fsencode(root)):
        for name in directories + files:
            path = os.path.join(top, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, os.fsencode(root))] = (status.st_mode, content)
    return found


def test_a_tree_arrives_as_it_is(tree):
    found = members(*read_tree(str(tree)))
    by_inode = {member.ino: member.data for member in found if member.data}
    assert {member.name: (member.mode, by_inode.get(member.ino, b"")) for member in found} == facts(tree)
    assert [member.nlink for member in found if member.name.startswith(b"bin/")] == [2, 2, 1]


def test_no_fact_of_the_host_gets_in(tree, monkeypatch):
    first = joined(*read_tree(str(tree)))
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            self._inner = scandir(path)

        def __enter__(self):
            return sorted(self._inner, key=lambda item: item.name, reverse=True)

        def __exit__(self, *_):
            self._inner.close()

    for path in tree.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1, 2))
            if os.getuid() == 0:
                mode = path.stat().st_mode
                os.chown(path, 1234, 4321)
                path.chmod(stat.S_IMODE(mode))  # a change of owner takes the setuid bit away
    tree.chmod(0o700)
    tree.rename(tree.with_name("elsewhere"))
    monkeypatch.setattr(os, "scandir", Backwards)
    assert joined(*read_tree(str(tree.with_name("elsewhere")) + "/")) == first


@pytest.mark.parametrize(("size", "longer"), [(5, True), (4, False), (0, False), (3 << 20, True)])
def test_a_file_that_changes_while_it_is_read(tmp_path, size, longer):
    path = tmp_path / "tree" / "file"
    path.parent.mkdir()
    path.write_bytes(bytes(size if not longer else 4))
    if not longer:
        path.write_bytes(bytes(6))
    entries = read_tree(str(path.parent))
    path.write_bytes(bytes(size))
    with pytest.raises(BootError, match=rf"{path}: had {4 if longer else 6} bytes, and has changed"):
        joined(*entries)


def test_a_file_that_is_replaced_by_a_link_is_not_followed(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    entries = read_tree(str(tmp_path))
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(BootError, match="cannot be read"):
        joined(*entries)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_unreadable_is_named_in_one_line(tmp_path, kind):
    path = tmp_path / "new\nline"
    path.mkdir() if kind == "directory" else path.touch()
    path.chmod(0)
    with without_privilege(), pytest.raises(BootError, match=r"new\\nline: cannot be read: Permission denied$"):
        joined(*read_tree(str(tmp_path)))


DEVICES = {
    "dev/console=c:5:1": (b"dev/console", stat.S_IFCHR | 0o600, (5, 1)),
    "/dev/vda=b:254:0:0660": (b"dev/vda", stat.S_IFBLK | 0o660, (254, 0)),
    "a=b=c:4095:1048575:7777": (b"a=b", stat.S_IFCHR | 0o7777, (4095, 1048575)),
}


@pytest.mark.parametrize(("text", "expected"), DEVICES.items())
def test_a_device_is_read(text, expected):
    entry = parse_device(text)
    assert (entry.name, entry.mode, entry.device) == expected


@pytest.mark.parametrize(
    "text", ["", "dev/null", "dev/null=c:1", "=c:1:3", "dev/null=p:1:3", "dev/null=c:1:3:99", "x=c:4096:0", "x=c:1:1048576"]
)
def test_a_device_that_cannot_be(text):
    with pytest.raises(BootError, match="the device"):
        parse_device(text)


def test_devices_bring_their_directories():
    entries = with_devices([Entry(b"a", stat.S_IFDIR | 0o700)], [parse_device("a/b/c/d=c:1:3"), parse_device("a/e=c:1:5")])
    assert [(entry.name, stat.S_IMODE(entry.mode)) for entry in sorted(entries)] == [
        (b"a", 0o700),
        (b"a/b", 0o755),
        (b"a/b/c", 0o755),
        (b"a/b/c/d", 0o600),
        (b"a/e", 0o600),
    ]


@pytest.mark.parametrize(("there", "message"), [(b"dev", "dev is no directory"), (b"dev/x", "dev/x: is there already")])
def test_a_device_whose_place_is_taken(there, message):
    with pytest.raises(BootError, match=message):
        with_devices([Entry(there, LINK, b"x")], [parse_device("dev/x=c:1:3")])


# What is there already.

ONE = joined(Entry(b"init", FILE, b"#!/bin/sh\n"), Entry(b"etc", DIRECTORY))
TWO = joined(Entry(b"more", FILE, bytes(range(256)) * 5000))


def surveyed(data):
    return survey(BytesImage(data))


@pytest.mark.parametrize("codec", LINUX_TAKES)
def test_compressed_archives_are_known(codec):
    plain_gap = bytes(4) + bytes(-len(compress(TWO, codec)) % 4)
    data = ONE + bytes(512) + compress(TWO, codec) + plain_gap + ONE
    assert surveyed(data) == (("", codec, ""), 5, 2 * len(ONE) + 512 + len(TWO))


def test_several_archives_in_one_compressed_piece():
    assert surveyed(compress(ONE + bytes(300) + TWO, "gzip")) == (("gzip",), 3, len(ONE) + 300 + len(TWO))


BAD = {
    "empty": (b"", "an empty file"),
    "zeros": (bytes(5000), "it holds zeros only"),
    "text": (b"hello\n", "no cpio archive, plain or compressed, but a text file"),
    "elf": (b"\x7fELF" + bytes(60), "starts with 7f 45 4c 46"),
    "odc": (b"070707" + b"0" * 104, r"format odc, at \+0x0: Linux takes newc"),
    "odd-header": (ONE[:20] + b"x" + ONE[21:], r"no newc header at \+0x0"),
    "signed-header": (ONE[:14] + b"-0000001" + ONE[22:], r"no newc header at \+0x0"),
    "no-name": (b"070701" + b"0" * 104, "a name of 0 bytes"),
    "long-name": (b"070701" + b"0" * 88 + b"00001001" + b"0" * 8, "a name of 4097 bytes"),
    "truncated": (ONE[:130], "truncated cpio archive: it ends after 1 entries"),
    "no-trailer": (ONE[:-124], "truncated cpio archive: it ends after 2 entries, without its trailer"),
    "junk": (ONE + b"\xffunk", r"the archive at 0x\w+: no cpio archive.*ff 75 6e 6b"),
    "misaligned": (ONE + bytes(2) + ONE, "must begin at a multiple of 4"),
    "misaligned-inside": (compress(ONE + bytes(2) + ONE, "gzip"), "no multiple of 4"),
    "gzip-of-text": (compress(b"hello\n" * 100, "gzip"), "no newc header at .*68 65 6c 6c"),
    "gzip-truncated": (compress(TWO, "gzip")[:-20], "truncated gzip"),
    "gzip-of-nothing": (compress(b"", "gzip"), "truncated cpio archive"),
    "xz-crc64": (lzma.compress(ONE), "xz with a check of type 4: Linux takes CRC32 only"),
    "lz4-frame": (bytes(lz4.frame.compress(ONE)), "Linux takes the legacy format only"),
    "lz4-without-end": (compress(TWO, "lz4") + ONE, "corrupt lz4|truncated lz4"),
    "lzo": (b"\x89LZO\0\r\n\x1a" + bytes(20), "lzo data"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_what_linux_would_not_unpack_is_refused(data, message):
    with pytest.raises(BootError, match=message):
        surveyed(data)


@given(st.data())
def test_no_archive_however_broken_gives_anything_but_a_boot_error(data):
    whole = ONE + bytes(4) + compress(ONE, data.draw(st.sampled_from(LINUX_TAKES)))
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for at in data.draw(st.lists(st.integers(0, max(0, len(broken) - 1)), max_size=3)):
        broken[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
    with contextlib.suppress(BootError):
        assert surveyed(bytes(broken)).entries <= 4


@given(st.lists(st.integers(1, 200), min_size=1, max_size=8))
def test_an_archive_is_followed_in_pieces_of_any_size(sizes):
    follower = Follower()
    at = number = 0
    while not follower.done:
        size = sizes[number % len(sizes)]
        assert follower.feed(ONE[at : at + size]) == min(size, len(ONE) - at) or follower.done
        at += size
        number += 1
    assert (follower.entries, follower.at) == (2, len(ONE) - 3)  # without the padding of the trailer


# What it costs: bytes are counted, not time.

EMPTY = joined()  # a trailer


class CountedImage(BytesImage):
    """Counts the bytes that are read."""

    count = 0

    def read(self, offset, size):
        self.count += size
        return super().read(offset, size)


class CountedBytes(bytes):
    """Counts the bytes of its parts that are copied."""

    count = 0

    def __getitem__(self, key):
        part = super().__getitem__(key)
        if isinstance(key, slice):
            CountedBytes.count += len(part)
        return part


@pytest.mark.parametrize("gap", [0, 512])
@pytest.mark.parametrize("codec", ["", *LINUX_TAKES])
def test_many_small_archives_are_read_once(codec, gap):
    one = compress(EMPTY, codec) if codec else EMPTY
    one += bytes(-len(one) % 4 + (4 if codec == "lz4" else 0) + gap)
    image = CountedImage(one * 20_000 if len(one) < 200 else one * 4000)
    assert survey(image).codecs[-1] == codec
    assert image.count < image.size + (1 << 20)


@pytest.mark.parametrize("gap", [0, 512])
def test_many_small_archives_in_a_compressed_one_are_copied_once(monkeypatch, gap):
    data = (EMPTY + bytes(gap)) * 3000
    monkeypatch.setattr(initramfs, "decompressed", lambda image, *_: iter([(CountedBytes(data), 0), (b"", image.size)]))
    monkeypatch.setattr(CountedBytes, "count", 0)
    assert surveyed(compress(EMPTY, "gzip")).unpacked == len(data)
    assert CountedBytes.count <= len(data)


def test_a_window_gives_what_the_image_has():
    data = bytes(range(256)) * 9000
    window = initramfs._Window(CountedImage(data))
    for at, size in ((0, 5), (1 << 20, 1), (1 << 20, 5), (5, 2 << 20), (len(data) - 1, 1), (len(data), 0), (0, len(data))):
        assert window.read(at, size) == data[at : at + size]
        rest = window.rest(at, size)
        assert data.startswith(bytes(rest), at)
        assert len(rest) >= size


# Together.


def test_what_is_together_is_known_again(tmp_path):
    """Files go in as they are, what is new is compressed; each begins where Linux finds it."""
    (tmp_path / "first").write_bytes(ONE[:-1])  # a multiple of 4, less one
    (tmp_path / "second").write_bytes(compress(TWO, "lz4"))
    parts = [Existing(str(tmp_path / "first")), Existing(str(tmp_path / "second")), [Entry(b"new", FILE, b"x" * 99)]]
    for codec in ("", *LINUX_TAKES):
        buffer = Buffer(parts, codec, 7)
        told = []
        data = b"".join(buffer.pieces(lambda done, total, told=told: told.append((done, total))))
        assert surveyed(data).codecs == ("", "lz4", codec)
        assert (buffer.entries, buffer.size) == (4, len(data))
        assert data.startswith(ONE + compress(TWO, "lz4"))
        assert all(done <= total for done, total in told)
        assert told[-1][0] == told[-1][1]
    for part in parts[:2]:
        part.close()


@pytest.mark.parametrize("codec", PACKED_BY)
@pytest.mark.parametrize("size", [0, 1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1])
def test_what_is_packed_in_pieces_is_unpacked_again(codec, size):
    data = (b"some text, " * (size // 11 + 1))[:size]
    packer = make_packer(codec, 1)
    packed = b"".join(packer.compress(data[at : at + 777_777]) for at in range(0, size, 777_777)) + packer.flush()
    found = next(known for known in CODECS if packed.startswith(known.magic))
    assert found.name == codec
    from pvhboot.loader.codecs import decompressed

    *pieces, (_, end) = decompressed(BytesImage(packed), found, 0, len(packed))
    assert b"".join(piece for piece, _ in pieces) == data
    assert end == len(packed)


def test_what_is_packed_tells_no_time_and_no_name():
    """RFC 1952: MTIME is at 4, flags at 3; and Linux wants of xz the check CRC32 (1)."""
    packed = compress(ONE, "gzip")
    assert (packed[3], struct.unpack_from("<I", packed, 4)[0]) == (0, 0)
    assert compress(ONE, "xz")[7] == 1
