"""What the tests of the cache of kernels share: kernels, and what is known of one that was opened."""

import gzip
import struct
import time
from pathlib import Path

from forge_bzimage import bzimage_of
from forge_elf import ENTRY, entry_note, forge, with_note_section
from pvhboot.loader.cache import Cache
from pvhboot.loader.kernel import Kernel
from pvhboot.shim.elfwriter import note

PLAIN = forge()
RELOCATABLE = forge(32, entry_note(size=4) + note(b"Xen\0", 19, struct.pack("<3I", 0x200000, 0x100000, 0x3FFFFFFF)))
IN_SECTION = with_note_section(forge(notes=b""), entry_note())
OTHER = forge(notes=entry_note(ENTRY + 1))  # of PLAIN's size, and with its beginning
FILES = {
    "plain": PLAIN,
    "relocatable": RELOCATABLE,
    "entry in a section": IN_SECTION,
    "gzip": gzip.compress(PLAIN),
    "bzImage": bzimage_of("lz4", RELOCATABLE),
}
WRAPPED = ("gzip", "bzImage")
LONG_AGO = time.time() - 3 * 86400


def facts(kernel: Kernel) -> tuple[object, ...]:
    """All that is known of a kernel, its bytes included."""
    data = bytearray(kernel.image_size)
    kernel.read_into(0, memoryview(data))
    known = kernel.kind, kernel.segments, kernel.entry, kernel.elf_entry, kernel.notes, kernel.relocation
    return *known, bytes(data)


def opened(path: Path, cache: Cache | None = None) -> tuple[object, ...]:
    with Kernel.open(path, cache=cache) as kernel:
        return facts(kernel)


def found(directory: Path, path: Path) -> bool:
    """Whether a kernel comes out of the cache; if so, it is as without one."""
    cache = Cache(str(directory))
    assert opened(path, cache) == opened(path)
    return cache.found == 1


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
