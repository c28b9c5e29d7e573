"""bzImage: a distribution's kernel opens as shipped; a header or payload that lies is told in one line."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from forge_bzimage import PACKERS, VERSION_STRING, bzimage, bzimage_of, lz4_legacy, pack_payload, size_word
from forge_elf import CODE, ENTRY, forge, load_segment, patch_bytes
from pvhboot.loader.bzimage import find_payload, is_bzimage, read_setup_header
from pvhboot.loader.image import BytesImage
from pvhboot.loader.kernel import Kernel
from pvhboot.shim.errors import BootError
from pvhboot.shim.stock import GUEST_BITS, default_guest

ALL = pytest.mark.parametrize("codec", PACKERS)
SIZE_FOLLOWS = pytest.mark.parametrize("codec", [codec for codec in PACKERS if codec != "gzip"])
KERNEL = forge()
PACKED = pack_payload("lz4", KERNEL)
SETUP = 5 * 512
PAYLOAD = SETUP + 0x2CC  # where it lies in what bzimage() makes


def refusal(data: bytes) -> str:
    """Why a file is no kernel; without its name."""
    with pytest.raises(BootError) as error:
        Kernel.from_bytes(data, "k")
    message = str(error.value)
    assert message.startswith("k: ")
    assert "\n" not in message
    return message[3:]


def contents(kernel: Kernel) -> bytes:
    """All of the uncompressed image."""
    out = bytearray(kernel.image_size)
    kernel.read_into(0, memoryview(out))
    return bytes(out)


# What is accepted.


@ALL
@pytest.mark.parametrize("bits", GUEST_BITS)
def test_the_guest_in_a_bzimage(tmp_path: Path, codec: str, bits: int) -> None:
    guest = default_guest(bits)
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage_of(codec, guest))
    with Kernel.open(path) as kernel, Kernel.from_bytes(guest, "guest") as plain:
        assert kernel.kind == f"bzImage ({codec}) of ELF{bits}"
        assert (kernel.entry, kernel.segments, kernel.notes) == (plain.entry, plain.segments, plain.notes)
        assert contents(kernel) == guest
        assert kernel.image_path is None


@pytest.mark.parametrize("setup_sects", [0, 1, 4, 39, 255])
def test_the_size_of_the_setup(setup_sects: int) -> None:
    data = bzimage(PACKED, setup_sects)
    assert read_setup_header(BytesImage(data)).setup_size == ((setup_sects or 4) + 1) * 512  # 0 means 4, says the protocol
    assert Kernel.from_bytes(data, "k").entry == ENTRY


@pytest.mark.parametrize(("protocol", "name"), [(0x208, "2.08"), (0x20F, "2.15"), (0x0A11, "10.17")])
def test_what_the_header_says(protocol: int, name: str) -> None:
    image = BytesImage(bzimage(PACKED, protocol=protocol))
    header = read_setup_header(image)
    assert (header.protocol, header.protocol_name) == (protocol, name)
    assert header.kernel_version == VERSION_STRING.decode()
    assert (header.setup_size, header.payload_offset, header.payload_length) == (SETUP, 0x2CC, len(PACKED))
    packed = find_payload(image, header)
    assert (packed.codec.name, packed.offset, packed.size) == ("lz4", PAYLOAD, len(PACKED))


def test_a_kernel_without_a_version_string() -> None:
    assert read_setup_header(BytesImage(bzimage(PACKED, kernel_version=0))).kernel_version == ""


def test_a_version_string_without_an_end_is_cut_and_made_printable() -> None:
    at = SETUP - 3 - 0x200
    data = patch_bytes(bzimage(PACKED, kernel_version=at), SETUP - 3, b"a\x1bb")
    assert read_setup_header(BytesImage(data)).kernel_version == "a?b"
    long = patch_bytes(bzimage(PACKED), 0x300, b"v" * 0x400)
    assert read_setup_header(BytesImage(long)).kernel_version == "v" * 256


def test_a_payload_at_the_very_end_of_the_file() -> None:
    assert Kernel.from_bytes(bzimage(PACKED, tail=b""), "k").entry == ENTRY


def test_other_files_with_the_magic_of_a_setup_header_are_what_they_begin_as() -> None:
    elf = patch_bytes(forge(loads=(load_segment(data=CODE + bytes(0x400)),)), 0x202, b"HdrS")
    assert Kernel.from_bytes(elf, "k").kind == "ELF64"
    packed = patch_bytes(PACKERS["gzip"](elf).ljust(0x400, b"\0"), 0x202, b"HdrS")  # beyond the end of the data
    assert len(PACKERS["gzip"](elf)) < 0x202
    assert Kernel.from_bytes(packed, "k").kind == "gzip of ELF64"
    assert not is_bzimage(elf)
    assert not is_bzimage(packed)
    assert is_bzimage(bzimage(PACKED))


def test_progress_counts_the_payload(tmp_path: Path) -> None:
    kernel = forge(loads=(load_segment(data=CODE + bytes(20 << 20), memsz=32 << 20),))
    payload = pack_payload("lz4", kernel)
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(payload))
    calls: list[tuple[int, int]] = []
    Kernel.open(path, progress=lambda done, total: calls.append((done, total))).close()
    assert len(calls) == 3  # one a block of 8 MiB
    assert calls == sorted(calls)
    assert calls[-1] == (len(payload) - 4, len(payload) - 4)


def test_a_plain_kernel_makes_no_progress(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(KERNEL)
    calls: list[int] = []
    Kernel.open(path, progress=lambda done, _: calls.append(done)).close()
    assert calls == []


# What is refused: the header.


@pytest.mark.parametrize("size", [0x206, 0x250, SETUP - 1])
def test_a_file_that_ends_in_the_setup(size: int) -> None:
    assert refusal(bzimage(PACKED)[:size]) == f"truncated bzImage: its setup of 5 sectors ends at 0xa00, the file at {size:#x}"


@pytest.mark.parametrize(("protocol", "name"), [(0x200, "2.00"), (0x207, "2.07"), (0, "0.00")])
def test_an_old_protocol(protocol: int, name: str) -> None:
    assert refusal(bzimage(PACKED, protocol=protocol)) == (
        f"a bzImage of boot protocol {name}, which does not tell where its kernel lies: 2.08 (Linux 2.6.26) and later do"
    )


def test_a_kernel_from_before_the_boot_protocol_is_a_boot_sector() -> None:
    assert "not an ELF file, but a boot sector" in refusal(patch_bytes(b"\xb8" + bytes(0x7FF), 0x1FE, b"\x55\xaa"))


@pytest.mark.parametrize("at", [SETUP - 0x200, 0xFFFF])
def test_a_version_string_outside_of_the_setup(at: int) -> None:
    message = refusal(bzimage(PACKED, kernel_version=at))
    assert message == f"the bzImage's kernel_version lies at {at + 0x200:#x}: its setup ends at 0xa00"


# What is refused: where the payload lies.


@pytest.mark.parametrize(("offset", "length"), [(0, len(PACKED)), (0x2CC, 0), (0x2CC, 4)])
def test_no_payload(offset: int, length: int) -> None:
    data = patch_bytes(bzimage(PACKED), 0x248, struct.pack("<II", offset, length))
    assert refusal(data) == f"a bzImage without a payload: payload_offset {offset:#x}, payload_length {length:#x}"


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0xFFFFFFFF, 0xFFFFFFFF), (0x2CC, 0xFFFFFFFF), (0xFFFFFFFF, 100), (0x2CC, len(PACKED) + 1)],
)
def test_a_payload_beyond_the_end(offset: int, length: int) -> None:
    data = patch_bytes(bzimage(PACKED, tail=b""), 0x248, struct.pack("<II", offset, length))
    start, end = SETUP + offset, SETUP + offset + length
    assert refusal(data) == (
        f"truncated bzImage: its payload lies at {start:#x}-{end:#x} by its header, but the file ends at {len(data):#x}"
    )


@pytest.mark.parametrize("payload", [b"\x12\x34\x56\x78" * 9, KERNEL, b"12345"], ids=["unknown", "plain ELF", "short"])
def test_a_payload_of_no_codec(payload: bytes) -> None:
    assert refusal(bzimage(payload)) == (
        f"the bzImage's payload at {PAYLOAD:#x} starts with {payload[:4].hex(' ')}: no codec of the kernel's does"
    )


def test_a_payload_of_lzo() -> None:
    assert "lzo data" in refusal(bzimage(bytes.fromhex("894c5a4f000d0a1a") + bytes(100)))


# What is refused: what is in the payload.


@ALL
def test_a_payload_that_is_no_elf_file(codec: str) -> None:
    assert refusal(bzimage_of(codec, b"#!/bin/sh\n")) == f"not an ELF file, but bzImage ({codec}) of a script"


@ALL
@pytest.mark.parametrize("inner", ["gzip", "zstd"])
def test_wrapped_twice(codec: str, inner: str) -> None:
    message = refusal(bzimage_of(codec, PACKERS[inner](KERNEL)))
    assert message == f"not an ELF file, but bzImage ({codec}) of {inner}: decompress it once more"
    assert (
        refusal(bzimage_of(codec, bzimage(PACKED)))
        == f"not an ELF file, but bzImage ({codec}) of a Linux bzImage: unpack it once"
    )
    assert refusal(PACKERS[codec](bzimage(PACKED))) == f"not an ELF file, but {codec} of a Linux bzImage: unpack it once"


@ALL
def test_a_payload_that_is_a_kernel_without_a_pvh_entry(codec: str) -> None:
    assert refusal(bzimage_of(codec, forge(notes=b""))) == "no ELF notes at all: a PVH kernel has a Xen note PHYS32_ENTRY"


@SIZE_FOLLOWS
@pytest.mark.parametrize("claimed", [0, len(KERNEL) - 1, len(KERNEL) + 1, 0xFFFFFFFF])
def test_a_size_that_disagrees(codec: str, claimed: int) -> None:
    payload = PACKERS[codec](KERNEL) + struct.pack("<I", claimed)
    assert refusal(bzimage(payload)) == (
        f"the bzImage's payload decompresses to {len(KERNEL)} bytes, but its end at {PAYLOAD + len(payload):#x} says {claimed}"
    )


def test_the_size_that_gzip_itself_has() -> None:
    payload = PACKERS["gzip"](KERNEL)
    assert "corrupt gzip data" in refusal(bzimage(payload[:-4] + struct.pack("<I", len(KERNEL) + 1)))


@SIZE_FOLLOWS
def test_a_payload_without_its_size(codec: str) -> None:
    assert refusal(bzimage(PACKERS[codec](KERNEL))).startswith((f"truncated {codec} data", f"corrupt {codec} data"))


def test_blocks_that_are_missing_at_a_boundary_are_noticed_by_the_size() -> None:
    data = forge(loads=(load_segment(data=CODE + bytes(9 << 20), memsz=16 << 20),))
    first = lz4_legacy(data[: 8 << 20])
    assert "decompresses to 8388608 bytes" in refusal(bzimage(first + size_word(data)))


@ALL
def test_cut_anywhere(codec: str) -> None:
    data = bzimage(pack_payload(codec, KERNEL), payload_offset=16, tail=b"")
    messages = [refusal(data[:size]) for size in range(len(data))]
    assert {message.partition(":")[0] for message in messages[SETUP:]} == {"truncated bzImage"}


@ALL
def test_a_payload_that_is_cut_with_a_length_that_agrees(codec: str) -> None:
    payload = pack_payload(codec, KERNEL)
    for size in range(5, len(payload)):
        refusal(bzimage(payload[:size]))


# Real files.


@pytest.mark.parametrize(("version", "codec"), [("6.1", "lz4"), ("6.12", "zstd")])
def test_debians_kernels_unpack_to_what_the_tools_of_their_codecs_gave(
    guest_file: Callable[[str], Path], version: str, codec: str
) -> None:
    plain = guest_file(f"vmlinux-{version}")
    with Kernel.open(guest_file(f"vmlinuz-{version}")) as kernel, Kernel.open(plain) as unpacked:
        assert kernel.kind == f"bzImage ({codec}) of ELF64"
        assert (kernel.entry, kernel.segments, kernel.notes) == (unpacked.entry, unpacked.segments, unpacked.notes)
        assert contents(kernel) == plain.read_bytes()
