"""Forges what distributions ship: kernels packed by each codec, and bzImages around them, by literal offsets.

Source: Linux Documentation/arch/x86/boot.rst; scripts/Makefile.lib (which codecs have the size appended).
"""

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable

import lz4.block
import lz4.frame
import zstandard

LZ4_MAGIC = b"\x02\x21\x4c\x18"
LZ4_BLOCK = 8 << 20
VERSION_STRING = b"6.1.0-forged (somebody@somewhere) #1 SMP"


def lz4_block(data: bytes) -> bytes:
    """A block of a legacy frame, with its size in front."""
    packed: bytes = lz4.block.compress(data, store_size=False)
    return struct.pack("<I", len(packed)) + packed


def lz4_legacy(data: bytes) -> bytes:
    """A legacy frame, as `lz4 -l` makes it."""
    return LZ4_MAGIC + b"".join(lz4_block(data[at : at + LZ4_BLOCK]) for at in range(0, len(data), LZ4_BLOCK))


def zstd_frame(*blocks: bytes, window_descriptor: int = 0x50) -> bytes:
    """A frame of raw blocks without checksum or content size; a window descriptor of 0x50 means 1 MiB (RFC 8878)."""
    out = b"\x28\xb5\x2f\xfd" + bytes([0, window_descriptor])
    for number, block in enumerate(blocks, 1):
        out += (len(block) << 3 | (number == len(blocks))).to_bytes(3, "little") + block
    return out


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "bzip2": lambda data: bz2.compress(data, 1),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=0),
    "xz": lambda data: lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, preset=0),
    "lz4": lz4_legacy,
    "lz4 frame": lambda data: bytes(lz4.frame.compress(data)),
    "zstd": lambda data: zstandard.ZstdCompressor(1, write_checksum=True).compress(data),
}


def size_word(data: bytes) -> bytes:
    """What is appended to a payload that was `data`."""
    return struct.pack("<I", len(data))


def pack_payload(codec: str, data: bytes) -> bytes:
    """A payload as the kernel's build makes it: gzip ends in the size by itself."""
    return PACKERS[codec](data) + (b"" if codec == "gzip" else size_word(data))


def bzimage(
    payload: bytes,
    setup_sects: int = 4,
    protocol: int = 0x20F,
    kernel_version: int = 0x100,
    payload_offset: int = 0x2CC,
    payload_length: int | None = None,
    tail: bytes = bytes(64),
) -> bytes:
    """A bzImage: setup, something before the payload, the payload, `tail`. The values of its header can lie.

    `kernel_version` is the pointer as the header has it, to be added to 0x200: the string stands there by default.
    """
    setup = bytearray(((setup_sects or 4) + 1) * 512)
    setup[0:2] = b"MZ"
    setup[0x1F1] = setup_sects
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, protocol)
    struct.pack_into("<H", setup, 0x20E, kernel_version)
    struct.pack_into("<II", setup, 0x248, payload_offset, len(payload) if payload_length is None else payload_length)
    setup[0x300 : 0x300 + len(VERSION_STRING) + 1] = VERSION_STRING + b"\0"
    return bytes(setup) + b"\xf4" * payload_offset + payload + tail


def bzimage_of(codec: str, data: bytes) -> bytes:
    """A bzImage as it should be, around a kernel."""
    return bzimage(pack_payload(codec, data))


SETUP_BYTES = 5 * 512  # with the 4 sectors that most kernels have
_SETUP_FIELDS = {
    "jump": (0x201, "<B"),
    "magic": (0x202, "<4s"),
    "protocol": (0x206, "<H"),
    "loadflags": (0x211, "<B"),
    "alignment": (0x230, "<I"),
    "relocatable": (0x234, "<B"),
    "setup_data": (0x250, "<Q"),
    "pref_address": (0x258, "<Q"),
    "init_size": (0x260, "<I"),
}
GOOD_SETUP: dict[str, int | bytes] = {
    "jump": 0x6A,
    "magic": b"HdrS",
    "protocol": 0x20F,
    "loadflags": 1,
    "alignment": 0x200000,
    "relocatable": 1,
    "setup_data": 0,
    "pref_address": 0x1000000,
    "init_size": 0x1800000,
}


def setup_part(**fields: int | bytes) -> bytes:
    """The real-mode part as a boot loader that enters in protected mode sees it: no byte of it is 0 but in these fields."""
    setup = bytearray(at * 7 % 255 + 1 for at in range(SETUP_BYTES))
    for name, value in {**GOOD_SETUP, **fields}.items():
        offset, code = _SETUP_FIELDS[name]
        struct.pack_into(code, setup, offset, value)
    return bytes(setup)
