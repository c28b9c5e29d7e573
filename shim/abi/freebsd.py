"""What of FreeBSD/amd64 a PVH loader meets: where its kernel is linked, and what its boot loader leaves as module 0.

Sources: FreeBSD sys/amd64/include/vmparam.h (KERNBASE, KERNLOAD), sys/conf/ldscript.amd64; sys/sys/linker.h (MODINFO_*) and
sys/kern/subr_module.c (how the records are walked); sys/amd64/include/metadata.h (struct xen_header).
"""

from typing import Final, NamedTuple

from .layout import Layout

KERNBASE: Final = 0xFFFFFFFF80000000  # a virtual address of the kernel minus this is the physical one
KERNLOAD: Final = 0x200000  # the lowest physical address of the kernel
KERNEL_END_ALIGN: Final = 0x200000  # its bss reaches to a multiple of this

MODINFO_END: Final = 0
MODINFO_NAME: Final = 1
MODINFO_TYPE: Final = 2
MODINFO_ALIGN: Final = 8  # bytes; a record's data is padded to it
MODULE_HEADER: Final = "header"  # the command line of a module 0 that begins with a xen_header
KERNEL_TYPES: Final = ("elf kernel", "elf64 kernel")  # the type of the record by which the metadata is known
XENHEADER_HAS_MODULEP_OFFSET: Final = 1 << 0


class Modinfo(NamedTuple):
    """The head of a metadata record: its kind, a MODINFO_*, and the bytes of data behind it. One of zeros ends them."""

    kind: int
    length: int


class XenHeader(NamedTuple):
    """struct xen_header: where in module 0, in bytes from its start, the metadata begins."""

    flags: int
    modulep_offset: int


MODINFO: Final = Layout(Modinfo, "II", "MODINFO")
XEN_HEADER: Final = Layout(XenHeader, "QQ", "XEN_HEADER")
