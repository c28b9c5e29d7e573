"""Several archives as one buffer: what Linux would unpack is known, what it would not is refused; and what it costs."""

import contextlib
import lzma

import lz4.frame
import pytest
from archives import DIRECTORY, FILE, joined
from hypothesis import given
from hypothesis import strategies as st
from pvhboot.loader import initramfs
from pvhboot.loader.cpio import Entry, Follower
from pvhboot.loader.image import BytesImage
from pvhboot.loader.initramfs import Buffer, Existing, survey
from pvhboot.loader.packing import compress
from pvhboot.shim.errors import BootError

LINUX_TAKES = ("gzip", "bzip2", "lzma", "xz", "lz4", "zstd")

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
