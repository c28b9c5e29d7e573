"""A bzImage, as distributions ship Linux: its setup header, and the compressed vmlinux that it carries as payload.

Source: Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header" and "Details of Header Fields".
"""

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from pvhboot.shim.abi import boot_params
from pvhboot.shim.abi.elf import ELF_MAGIC
from pvhboot.shim.errors import BootError

from .codecs import Codec, Progress, decompress, find_codec
from .image import Image
from .printable import printable

_KERNEL_VERSION_SHOWN: Final = 256  # bytes; Debian's have 110
_SIZE_WORD: Final = 4  # bytes


class SetupHeader(NamedTuple):
    """What a bzImage says of itself: the boot protocol as in 0x20f for 2.15, the kernel's name for itself ("" if it has none).

    `setup_size` is that of the real-mode part, in bytes; `payload_offset` counts from its end, 0 if there is no payload. The
    fields behind them have the documentation's names; None is what this protocol does not have yet.
    """

    protocol: int
    kernel_version: str
    setup_size: int
    payload_offset: int
    payload_length: int
    loadflags: int | None
    code32_start: int | None
    kernel_alignment: int | None
    relocatable_kernel: int | None
    cmdline_size: int | None
    pref_address: int | None
    init_size: int | None
    handover_offset: int | None
    xloadflags: int | None

    @property
    def protocol_name(self) -> str:
        """As the documentation writes it: "2.15"."""
        return boot_params.protocol_name(self.protocol)


# Field by field, and the protocol that it came with.
_SINCE: Final = (
    (boot_params.LOADFLAGS, boot_params.PROTOCOL_HEADER),
    (boot_params.CODE32_START, boot_params.PROTOCOL_HEADER),
    (boot_params.ALIGNMENT, boot_params.PROTOCOL_ALIGNMENT),
    (boot_params.RELOCATABLE, boot_params.PROTOCOL_ALIGNMENT),
    (boot_params.CMDLINE_SIZE, boot_params.PROTOCOL_CMDLINE_SIZE),
    (boot_params.PREF_ADDRESS, boot_params.PROTOCOL_INIT_SIZE),
    (boot_params.INIT_SIZE, boot_params.PROTOCOL_INIT_SIZE),
    (boot_params.HANDOVER_OFFSET, boot_params.PROTOCOL_HANDOVER),
    (boot_params.XLOADFLAGS, boot_params.PROTOCOL_XLOADFLAGS),
)


class PackedKernel(NamedTuple):
    """The compressed vmlinux in a bzImage: `offset` in the file and `size` in bytes."""

    codec: Codec
    offset: int
    size: int


def is_bzimage(head: bytes) -> bool:
    """Whether a file that starts so has a setup header, and is nothing else; one older than protocol 2.00 has none."""
    offset, magic = boot_params.HEADER_MAGIC
    has_header = head[offset : offset + len(magic)] == magic
    return has_header and not head.startswith(ELF_MAGIC) and find_codec(head) is None


def read_setup_header(image: Image) -> SetupHeader:
    """The setup header of a file that is_bzimage; BootError if it is truncated, or says what cannot be."""
    setup_size = boot_params.setup_bytes(*_field(image, boot_params.SETUP_SECTS))
    if setup_size > image.size:
        raise BootError(
            f"truncated bzImage: its setup of {setup_size // boot_params.SECTOR_BYTES} sectors ends at {setup_size:#x}, "
            f"the file at {image.size:#x}"
        )
    (protocol,) = _field(image, boot_params.VERSION)
    (version_at,) = _field(image, boot_params.KERNEL_VERSION)
    kernel_version = ""
    if version_at:
        version_at += boot_params.KERNEL_VERSION_BASE
        if version_at >= setup_size:
            raise BootError(f"the bzImage's kernel_version lies at {version_at:#x}: its setup ends at {setup_size:#x}")
        text = image.read(version_at, min(_KERNEL_VERSION_SHOWN, setup_size - version_at)).partition(b"\0")[0]
        kernel_version = printable(text)
    payload = _field(image, boot_params.PAYLOAD) if protocol >= boot_params.PAYLOAD_PROTOCOL else (0, 0)
    fields = (_field(image, field)[0] if protocol >= since else None for field, since in _SINCE)
    return SetupHeader(protocol, kernel_version, setup_size, *payload, *fields)


def find_payload(image: Image, header: SetupHeader) -> PackedKernel:
    """Where the payload lies, and its codec; BootError if there is none, it reaches beyond the file, or no codec knows it."""
    if header.protocol < boot_params.PAYLOAD_PROTOCOL:
        raise BootError(
            f"a bzImage of boot protocol {header.protocol_name}, which does not tell where its kernel lies: 2.08 "
            "(Linux 2.6.26) and later do"
        )
    offset, size = header.setup_size + header.payload_offset, header.payload_length
    if not header.payload_offset or size <= _SIZE_WORD:
        raise BootError(f"a bzImage without a payload: payload_offset {header.payload_offset:#x}, payload_length {size:#x}")
    if offset + size > image.size:
        raise BootError(
            f"truncated bzImage: its payload lies at {offset:#x}-{offset + size:#x} by its header, but the file ends at "
            f"{image.size:#x}"
        )
    head = image.read(offset, min(16, size))
    codec = find_codec(head)
    if codec is None:
        raise BootError(f"the bzImage's payload at {offset:#x} starts with {head[:4].hex(' ')}: no codec of the kernel's does")
    return PackedKernel(codec, offset, size)


def unpack(
    image: Image, packed: PackedKernel, check_head: Callable[[bytes], None], progress: Progress | None = None
) -> bytearray:
    """The decompressed payload; BootError as codecs.decompress, and if its size is not what the last 4 bytes say."""
    end = packed.offset + packed.size
    data_end = end - _SIZE_WORD if packed.codec.size_follows else end
    out = decompress(image, packed.codec, packed.offset, data_end, check_head, progress)
    claimed = int.from_bytes(image.read(end - _SIZE_WORD, _SIZE_WORD), "little")
    if len(out) != claimed:
        raise BootError(f"the bzImage's payload decompresses to {len(out)} bytes, but its end at {end:#x} says {claimed}")
    return out


def _field(image: Image, field: tuple[int, str]) -> tuple[int, ...]:
    offset, code = field
    return struct.unpack(code, image.read(offset, struct.calcsize(code)))
