"""Codecs: what was packed comes out again, what is wrong is told with its place, and no claim of the data costs memory."""

import lzma
import random
import re
import struct
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from forge_bzimage import LZ4_MAGIC, PACKERS, lz4_block, zstd_frame
from forge_elf import forge, patch_bytes
from pvhboot.loader.codecs import CODECS, Codec, decompress, find_codec
from pvhboot.loader.image import HEAD_SIZE, BytesImage
from pvhboot.loader.kernel import Kernel
from pvhboot.shim.errors import BootError

ALL = pytest.mark.parametrize("codec", PACKERS)
TESTS = Path(__file__).parent.parent
RANDOM = random.Random(1).randbytes(3 << 20)


def unpack(packed: bytes, check_head: Callable[[bytes], None] = lambda _: None) -> bytes:
    """Decompresses by the codec that the first bytes tell."""
    codec = find_codec(packed)
    assert codec is not None
    return bytes(decompress(BytesImage(packed), codec, 0, len(packed), check_head))


# What is known.


def test_the_magic_numbers() -> None:
    # Linux Documentation/arch/x86/boot.rst, payload_offset, and longer where that is ambiguous; lzop's conf.h.
    assert {codec.name: codec.magic.hex() for codec in CODECS} == {
        "gzip": "1f8b",
        "bzip2": "425a68",
        "lzma": "5d0000",
        "xz": "fd377a585a00",
        "lzo": "894c5a4f000d0a1a",
        "lz4": "02214c18",
        "lz4 frame": "04224d18",
        "zstd": "28b52ffd",
    }


@ALL
def test_a_codec_is_found_by_what_it_packed(codec: str) -> None:
    found = find_codec(PACKERS[codec](b"x"))
    assert found is not None
    assert found.name == codec


@pytest.mark.parametrize("head", [b"", b"\x1f", b"\x7fELF", b"MZ" + bytes(600), LZ4_MAGIC[:3]])
def test_nothing_else_is_taken_for_a_codec(head: bytes) -> None:
    assert find_codec(head) is None


# What comes out.


@ALL
@pytest.mark.parametrize(
    "data",
    [
        b"x",
        bytes(HEAD_SIZE - 1),
        bytes(HEAD_SIZE),
        bytes(HEAD_SIZE + 1),
        RANDOM,
        bytes(9 << 20) + RANDOM,
        RANDOM + bytes(9 << 20),
    ],
    ids=["1", "head-1", "head", "head+1", "random", "zeros first", "zeros last"],
)
def test_what_was_packed_comes_out(codec: str, data: bytes) -> None:
    assert unpack(PACKERS[codec](data)) == data


@ALL
def test_nothing_comes_out_of_nothing(codec: str) -> None:
    heads: list[bytes] = []
    assert unpack(PACKERS[codec](b""), heads.append) == b""
    assert heads == [b""]


def test_a_legacy_block_may_decompress_to_8_mib_and_to_no_more() -> None:
    assert len(unpack(LZ4_MAGIC + lz4_block(bytes(8 << 20)))) == 8 << 20
    with pytest.raises(BootError, match="corrupt lz4 data at 0x4-"):
        unpack(LZ4_MAGIC + lz4_block(bytes((8 << 20) + 1)))


@pytest.mark.parametrize("level", [1, 19])
@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("size", [False, True])
def test_zstd_with_and_without_what_is_optional(level: int, checksum: bool, size: bool) -> None:
    packer = zstandard.ZstdCompressor(level, write_checksum=checksum, write_content_size=size)
    data = RANDOM[: 300 << 10] + bytes(300 << 10)
    assert unpack(packer.compress(data)) == data
    stream = packer.compressobj()
    parts = stream.compress(data[:1000]) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) + stream.compress(data[1000:])
    assert unpack(parts + stream.flush()) == data


def test_zstd_of_raw_blocks() -> None:
    assert unpack(zstd_frame(b"abc", b"", b"def")) == b"abcdef"


@pytest.mark.parametrize("options", [{"block_size": 4}, {"block_size": 7, "content_checksum": True}, {"block_linked": False}])
def test_lz4_frames_of_several_kinds(options: dict[str, int]) -> None:
    data = RANDOM[:100000] + bytes(5 << 20)
    assert unpack(lz4.frame.compress(data, **options)) == data


def test_xz_with_the_largest_window_and_the_filter_that_the_kernel_uses() -> None:
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 128 << 20}]
    assert unpack(lzma.compress(b"kernel" * 100, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)) == b"kernel" * 100


@ALL
def test_a_range_of_an_image(codec: str) -> None:
    packed = PACKERS[codec](RANDOM)
    image = BytesImage(b"before" + packed + packed)
    found = find_codec(packed)
    assert found is not None
    assert decompress(image, found, 6, 6 + len(packed), lambda _: None) == RANDOM


@ALL
@pytest.mark.parametrize("tail", [bytes(4), bytes(1000)])
def test_zeros_after_the_end_are_ignored(codec: str, tail: bytes) -> None:
    assert unpack(PACKERS[codec](b"kernel") + tail) == b"kernel"


@ALL
def test_a_second_member_is_refused_and_told_with_its_place(codec: str) -> None:
    packed = PACKERS[codec](b"kernel")
    with pytest.raises(BootError, match=rf"^{codec} data of several members, the second at {len(packed):#x}: compress"):
        unpack(packed + packed)


@ALL
def test_progress(codec: str) -> None:
    data = RANDOM + bytes(9 << 20)
    packed = PACKERS[codec](data)
    calls: list[tuple[int, int]] = []
    found = find_codec(packed)
    assert found is not None
    image = BytesImage(bytes(7) + packed)
    decompress(image, found, 7, image.size, lambda _: None, lambda done, total: calls.append((done, total)))
    assert len(calls) > 1
    assert calls == sorted(calls)
    assert {total for _, total in calls} == {len(packed)}
    assert 0 < calls[0][0] < calls[-1][0] <= len(packed)


@ALL
def test_the_head_is_checked_once_and_before_the_rest_is_decompressed(codec: str) -> None:
    packed = PACKERS[codec](b"#!/bin/sh\n" + bytes(64 << 20))
    heads: list[bytes] = []

    def check(head: bytes) -> None:
        heads.append(head)
        raise BootError("no kernel")

    tracemalloc.start()
    try:
        with pytest.raises(BootError, match=r"^no kernel$"):
            unpack(packed, check)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20  # a block of lz4, twice, and what is read at once
    finally:
        tracemalloc.stop()
    assert heads == [b"#!/bin/sh\n" + bytes(HEAD_SIZE - 10)]


# What is refused.


@ALL
def test_cut_anywhere(codec: str) -> None:
    data = forge()
    packed = PACKERS[codec](data)
    for size in range(len(packed)):
        with pytest.raises(BootError) as error:
            Kernel.from_bytes(packed[:size], "k")
        assert "\n" not in str(error.value)
        if size >= 8:
            assert f"truncated {codec} data: it ends at {size:#x}, with " in str(error.value)


@ALL
def test_damage_is_told_with_its_place(codec: str) -> None:
    data = RANDOM[: 1 << 20] + bytes(1 << 20)
    packed = PACKERS[codec](data)
    at = len(packed) // 2
    broken = patch_bytes(packed, at - 8, b"\xff" * 16)
    if codec.startswith("lz4"):  # random bytes are literals there, and without a checksum
        assert len(unpack(broken)) == len(data)
        return
    with pytest.raises(
        BootError, match=rf"^corrupt {codec} data at 0x[0-9a-f]+-0x[0-9a-f]+, after \d+ decompressed bytes: .+$"
    ) as error:
        unpack(broken)
    assert "\n" not in str(error.value)


def test_the_place_of_a_broken_block() -> None:
    with pytest.raises(BootError, match=r"corrupt zstd data at 0xc-0xf, after 3 decompressed bytes: .+"):
        unpack(zstd_frame(b"abc", b"def")[:12] + b"\x07\0\0")  # the last block, of the reserved type, without bytes
    first = lz4_block(b"abc")
    with pytest.raises(
        BootError, match=rf"corrupt lz4 data at {4 + len(first):#x}-{16 + len(first):#x}, after 3 decompressed bytes: .+"
    ):
        unpack(LZ4_MAGIC + first + struct.pack("<I", 8) + b"\xff" * 8)


def test_lzo_is_known_and_refused() -> None:
    data = bytes.fromhex("894c5a4f000d0a1a") + bytes(600)
    with pytest.raises(BootError, match=r"^k: lzo data, which is not read here: unpack it with lzop, or .*extract-vmlinux$"):
        Kernel.from_bytes(data, "k")


@pytest.mark.parametrize(
    ("codec", "module", "wrapper"),
    [
        ("gzip", "zlib", "zlib"),
        ("bzip2", "_bz2", "bz2"),
        ("xz", "_lzma", "lzma"),
        ("lzma", "_lzma", "lzma"),
        ("lz4", "lz4.block", "lz4.block"),
        ("lz4 frame", "lz4.frame", "lz4.frame"),
        ("zstd", "zstandard", "zstandard"),
    ],
)
def test_a_python_without_the_library(monkeypatch: pytest.MonkeyPatch, codec: str, module: str, wrapper: str) -> None:
    packed = PACKERS[codec](forge())
    monkeypatch.delitem(sys.modules, wrapper, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BootError, match=rf"^k: {codec} data, but this Python has no module {module} to decompress it: install"):
        Kernel.from_bytes(packed, "k")


def test_a_codec_that_finds_no_memory() -> None:
    def fail(_: object) -> Iterator[bytes]:
        yield b"abc"
        raise MemoryError

    with pytest.raises(BootError, match=r"^the host has no memory to decompress it: 3 bytes so far$"):
        decompress(BytesImage(b""), Codec("failing", b"magic", fail), 0, 0, lambda _: None)


# Bounds. The libraries take memory that tracemalloc does not see: these run alone, and the kernel counts.


def run_alone(code: str, packed: Path) -> str:
    """What a new Python prints that has the loader imported and warm, `data` read, and no room but what it makes itself."""
    setup = f"""
        import re, resource, sys
        sys.path.insert(0, {str(TESTS)!r})
        from forge_bzimage import PACKERS
        from forge_elf import forge
        from pvhboot.loader import codecs
        from pvhboot.loader.kernel import Kernel
        from pvhboot.shim.errors import BootError

        def status(name):
            with open("/proc/self/status") as file:
                return int(re.search(name + r":\\s+(\\d+) kB", file.read())[1]) << 10

        for pack in PACKERS.values():
            Kernel.from_bytes(pack(forge()), "warm").close()
        with open({str(packed)!r}, "rb") as file:
            data = file.read()

        def attempt():
            try:
                Kernel.from_bytes(data, "k")
            except BootError as error:
                return str(error)
    """
    source = textwrap.dedent(setup) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@ALL
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_bomb_takes_no_more_memory_than_the_limit(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(PACKERS[codec](forge() + bytes(128 << 20)))
    code = """
        codecs.UNPACKED_MAX_SIZE = 16 << 20
        before = status("VmRSS")
        message = attempt()
        print(status("VmHWM") - before, message)
    """
    grown, _, message = run_alone(code, path).strip().partition(" ")
    assert message == f"k: {codec} of more than 16777216 bytes (16 MiB): no kernel is that large"
    # The limit, the eighth that bytearray reserves, a copy where that moves, and what a piece of lz4 takes.
    assert int(grown) < 64 << 20


def _lzma_header(dictionary: int, size: int) -> bytes:
    return b"\x5d" + struct.pack("<IQ", dictionary, size)


def _xz_of_a_large_window() -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    return lzma.compress(forge(), lzma.FORMAT_XZ, filters=filters)


def _zstd_of_a_large_window() -> bytes:
    return zstd_frame(forge(), window_descriptor=21 << 3)  # 1 << (10 + 21)


def _zstd_of_a_large_segment() -> bytes:
    frame = zstd_frame(forge())
    return frame[:4] + b"\xe0" + struct.pack("<Q", 1 << 40) + frame[6:]  # Single_Segment, Frame_Content_Size of 8 bytes


def _zstd_of_a_large_size() -> bytes:
    frame = zstd_frame(forge())
    return frame[:4] + b"\xc0" + frame[5:6] + struct.pack("<Q", 1 << 40) + frame[6:]


def _lz4_frame_of_a_large_size() -> bytes:
    context = lz4.frame.create_compression_context()
    head: bytes = lz4.frame.compress_begin(context, source_size=1 << 40)
    body: bytes = lz4.frame.compress_chunk(context, forge()) + lz4.frame.compress_flush(context, end_frame=False)
    return head + body + bytes(4)


WINDOW = r"a window of more than 134217728 bytes, which is the most that a kernel is compressed with$"
CLAIMS: dict[str, tuple[Callable[[], bytes], str]] = {
    "xz window": (_xz_of_a_large_window, r"k: corrupt xz data at .*: " + WINDOW),
    "lzma window": (lambda: _lzma_header(1 << 31, 1 << 20) + bytes(100), r"k: corrupt lzma data at .*: " + WINDOW),
    "lzma larger window": (
        lambda: _lzma_header(3 << 30, 1 << 20) + bytes(100),
        r"k: corrupt lzma data at .*: " + WINDOW,
    ),
    "lzma size": (lambda: _lzma_header(1 << 16, 1 << 37) + PACKERS["lzma"](forge())[13:], r"k: corrupt lzma data at "),
    "zstd window": (_zstd_of_a_large_window, r"k: corrupt zstd data at .*: " + WINDOW),
    "zstd segment": (_zstd_of_a_large_segment, r"k: corrupt zstd data at "),
    "zstd size": (_zstd_of_a_large_size, r"k: corrupt zstd data at "),
    "zstd block": (lambda: zstd_frame(b"")[:6] + b"\xff" * 100, r"k: corrupt zstd data at .*: a block of 2097151 bytes, where"),
    "lz4 block": (
        lambda: LZ4_MAGIC + b"\xff" * 100,
        r"k: corrupt lz4 data at 0x4-0x8.*: a block of 4294967295 bytes, where one has",
    ),
    "lz4 block in a short file": (lambda: LZ4_MAGIC + struct.pack("<I", 8 << 20), r"k: truncated lz4 data: it ends at 0x8"),
    "lz4 frame size": (_lz4_frame_of_a_large_size, r"k: corrupt lz4 frame data at .*: .*frameSize_wrong"),
}


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_claim_costs_no_memory(tmp_path: Path, name: str) -> None:
    make, pattern = CLAIMS[name]
    path = tmp_path / "claim"
    path.write_bytes(make())
    # 192 MiB more than it has: a decoder of xz may take a window of 128 MiB, which counts here though no page of it is touched.
    code = """
        limit = status("VmSize") + (192 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        before = status("VmRSS")
        message = attempt()
        print(status("VmHWM") - before, message)
    """
    grown, _, message = run_alone(code, path).strip().partition(" ")
    assert re.match(pattern, message), message
    assert int(grown) < 32 << 20


@ALL
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_host_without_memory(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "large"
    path.write_bytes(PACKERS[codec](forge() + bytes(256 << 20)))
    code = """
        limit = status("VmSize") + (64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        print(attempt())
    """
    assert re.match(r"k: the host has no memory to decompress it: \d+ bytes so far$", run_alone(code, path))


def test_libraries_are_imported_only_when_their_data_is_met() -> None:
    code = """
        import sys
        import pvhboot.loader.inspection
        from pvhboot.loader.kernel import Kernel
        libraries = {"zlib", "bz2", "lzma", "lz4", "zstandard"}
        assert not libraries & set(sys.modules), "at the start"
        try:
            Kernel.from_bytes(bytes.fromhex("28b52ffd"), "k")
        except Exception as error:
            assert "truncated zstd" in str(error)
        assert libraries & set(sys.modules) == {"zstandard"}
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
