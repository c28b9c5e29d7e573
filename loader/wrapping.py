"""What a file is, told by its first bytes, and the ELF image in it, taken out of a bzImage or decompressed."""

from typing import Final, NamedTuple

from pvhboot.shim.abi import boot_params
from pvhboot.shim.abi.elf import ELF_MAGIC
from pvhboot.shim.errors import BootError

from .bzimage import find_payload, is_bzimage, read_setup_header, unpack
from .codecs import CODECS, Progress, decompress, find_codec
from .image import BytesImage, Image, OpenImage, read_head

_MAGICS: Final = (
    # Offset, bytes, what it is; the first that fits. A bzImage with an EFI stub is a PE too.
    (*boot_params.HEADER_MAGIC, "a Linux bzImage: unpack it once"),
    (0, b"MZ", "a PE executable, as EFI starts them"),
    (0, b"#!", "a script"),
    *((0, codec.magic, f"{codec.name}: decompress it once more") for codec in CODECS),
    (0, b"07070", "a cpio archive, as an initrd is"),
    (0, b"!<arch>\n", "an ar archive, as a .deb or a .a is"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (*boot_params.BOOT_FLAG, "a boot sector, as of a disk, or a Linux from before the boot protocol 2.00"),
)


def describe(head: bytes) -> str:
    """What a file is, by its first bytes; "" if that is not known."""
    for offset, magic, what in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return what
    return "a text file" if head and all(0x20 <= byte < 0x7F or byte in b"\t\r\n" for byte in head) else ""


def is_wrapped(head: bytes) -> bool:
    """Whether a file that starts so is compressed, or a bzImage."""
    return find_codec(head) is not None or is_bzimage(head)


class Wrapping(NamedTuple):
    """How an ELF image is wrapped in a file: by the codec of that name ("": it is the file itself), whose `size` bytes lie at
    `offset` of the file, perhaps in a bzImage."""

    codec: str
    offset: int
    size: int
    in_bzimage: bool = False

    @property
    def prefix(self) -> str:
        """In front of what is wrapped: "", "gzip of ", "bzImage (zstd) of "."""
        return f"bzImage ({self.codec}) of " if self.in_bzimage else f"{self.codec} of " if self.codec else ""


def unwrap(image: OpenImage, progress: Progress | None = None) -> tuple[OpenImage, Wrapping]:
    """The ELF image in a file, and how it was wrapped.

    BootError, saying what it is, if it holds none. `progress` is told how much of what is compressed has been consumed.
    """
    if image.size == 0:
        raise BootError("an empty file")
    head = read_head(image)
    if codec := find_codec(head):
        wrapping = Wrapping(codec.name, 0, image.size)
        data = decompress(image, codec, 0, image.size, lambda head: _require_elf(head, wrapping.prefix), progress)
    elif is_bzimage(head):
        packed = find_payload(image, read_setup_header(image))
        wrapping = Wrapping(packed.codec.name, packed.offset, packed.size, True)
        data = unpack(image, packed, lambda head: _require_elf(head, wrapping.prefix), progress)
    else:
        _require_elf(head, "")
        return image, Wrapping("", 0, image.size)
    return BytesImage(data), wrapping


def require_plain_elf(image: Image) -> None:
    """BootError unless the file is an ELF file itself, neither compressed nor in a bzImage."""
    if image.size == 0:
        raise BootError("an empty file")
    head = read_head(image)
    codec = find_codec(head)
    if codec or is_bzimage(head):
        what = f"{codec.name} data" if codec else "a bzImage"
        raise BootError(f"{what}: pvhboot extract takes the ELF file out of it, which is what to use here")
    _require_elf(head, "")


def _require_elf(head: bytes, prefix: str) -> None:
    if not head.startswith(ELF_MAGIC):
        what = describe(head) or ("something" if head else "nothing") + f" that starts with {head[:4].hex(' ') or 'no byte'}"
        raise BootError(f"not an ELF file, but {prefix}{what}")
