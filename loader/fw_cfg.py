"""What QEMU's fw_cfg holds on a machine that boots a plan: the plan's own items, and what a recording has of the machine.

Source: QEMU hw/i386/microvm.c, hw/i386/x86.c (x86_load_linux), hw/i386/multiboot.c, hw/nvram/fw_cfg.c; compared with a
running QEMU by tests/emu/test_fw_cfg_live.py. Not there: bootorder, etc/fdt, option ROMs.
"""

from collections.abc import Callable, Mapping
from typing import Final

from pvhboot.shim.abi import fw_cfg
from pvhboot.shim.abi.e820 import E820_ENTRY, E820Entry
from pvhboot.shim.abi.pvh import MEMMAP_TYPE_RAM, MEMMAP_TYPE_RESERVED
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import ram_spans

from .image import BytesImage, SizedSource
from .plan import BootPlan
from .ranges import without
from .recording import RecordedFile, Recording, default_recording

# Of the kernel file that QEMU hands over. It keeps a pointer to a buffer on its stack (x86_load_linux), so what a guest reads
# there is up to chance; here it is what was meant.
_HEADER_BYTES: Final = 8192


class FileContents:
    """A recorded file as it is during one boot: a guest may write to it, if it is `writeable`. `size` in bytes."""

    def __init__(self, file: RecordedFile) -> None:
        self.size = file.size
        self.writeable = file.writeable
        self._data = bytearray(file.data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer; BootError if there are fewer bytes."""
        self._require(offset, len(buffer))
        there = self._data[offset : offset + len(buffer)]
        buffer[: len(there)] = there
        buffer[len(there) :] = bytes(len(buffer) - len(there))

    def write(self, offset: int, data: bytes) -> None:
        """Stores within the file; BootError if it ends before."""
        self._require(offset, len(data))
        self._data.extend(bytes(max(0, offset + len(data) - len(self._data))))
        self._data[offset : offset + len(data)] = data

    def _require(self, offset: int, size: int) -> None:
        if offset + size > self.size:
            raise BootError(f"no bytes at {offset:#x}-{offset + size:#x}: the file ends at {self.size:#x}")


def host_e820(plan: BootPlan) -> list[E820Entry]:
    """The file etc/e820: what the host reserves itself, then RAM, in QEMU's order, with what of it is reserved."""
    ram = without(ram_spans(plan.spec, plan.ram_size), plan.reserved)
    entries = [E820Entry(span.start, span.size, MEMMAP_TYPE_RAM) for span in ram]
    entries += [E820Entry(span.start, span.size, MEMMAP_TYPE_RESERVED) for span in plan.reserved]
    return [*plan.host_reserved, *sorted(entries)]


def fw_cfg_items(
    plan: BootPlan, recording: Recording | None = None, changed: Mapping[bytes, SizedSource | None] | None = None
) -> Mapping[int, SizedSource]:
    """Every item by its key, the directory included. Numbers are little-endian, as on a PC; the directory is big-endian.
    Without a recording, it is the machine's default. `changed` are files that replace those of the same name, that are there
    besides, or (None) are not there.

    The kernel and the modules of the plan must still be open when an item is read.
    """
    machine = default_recording(plan.spec) if recording is None else recording

    def number(value: int, size: int = 4) -> SizedSource:
        return BytesImage(value.to_bytes(size, "little"))

    kernel = plan.kernel
    header = bytearray(_HEADER_BYTES)
    kernel.read_into(0, memoryview(header)[: min(_HEADER_BYTES, kernel.image_size)])
    start, end = plan.segments[0].paddr, plan.segments[-1].end
    cmdline = (plan.cmdline or b"") + b"\0"
    items: dict[int, SizedSource] = {key: BytesImage(data) for key, data in machine.items.items()}
    items |= {
        fw_cfg.FW_CFG_SIGNATURE: BytesImage(fw_cfg.FW_CFG_SIGNATURE_DATA),
        fw_cfg.FW_CFG_ID: number(fw_cfg.FW_CFG_VERSION | (fw_cfg.FW_CFG_VERSION_DMA if plan.dma else 0)),
        fw_cfg.FW_CFG_RAM_SIZE: number(plan.ram_size, 8),
        fw_cfg.FW_CFG_NB_CPUS: number(1, 2),  # the boards have one, whatever was recorded
        fw_cfg.FW_CFG_KERNEL_ADDR: number(start & 0xFFFFFFFF),
        fw_cfg.FW_CFG_KERNEL_SIZE: number(end - start & 0xFFFFFFFF),
        fw_cfg.FW_CFG_KERNEL_ENTRY: number(plan.entry),
        fw_cfg.FW_CFG_CMDLINE_SIZE: number(len(cmdline)),
        fw_cfg.FW_CFG_CMDLINE_DATA: BytesImage(cmdline),
        fw_cfg.FW_CFG_SETUP_SIZE: number(len(header)),
        fw_cfg.FW_CFG_SETUP_DATA: BytesImage(header),
    }
    for module in plan.modules:
        items |= {
            fw_cfg.FW_CFG_INITRD_ADDR: number(module.paddr),
            fw_cfg.FW_CFG_INITRD_SIZE: number(module.payload.size),
            fw_cfg.FW_CFG_INITRD_DATA: module.payload,
        }
    files: dict[bytes, SizedSource] = {name: FileContents(file) for name, file in machine.files.items()}
    files[fw_cfg.E820_FILE] = BytesImage(b"".join(map(E820_ENTRY.pack, host_e820(plan))))
    wanted = {**files, **(changed or {})}
    return items | with_directory({name: source for name, source in wanted.items() if source is not None})


def item_bytes(item: SizedSource) -> bytes:
    """All of an item."""
    data = bytearray(item.size)
    item.read_into(0, memoryview(data))
    return bytes(data)


def directory(items: Mapping[int, SizedSource]) -> dict[int, fw_cfg.FwCfgFile]:
    """The files of fw_cfg by their keys, as its directory lists them."""
    data = item_bytes(items[fw_cfg.FW_CFG_FILE_DIR])
    starts = range(fw_cfg.FW_CFG_FILE_COUNT_BYTES, len(data), fw_cfg.FW_CFG_FILE.size)
    files = (fw_cfg.FW_CFG_FILE.unpack(data[at : at + fw_cfg.FW_CFG_FILE.size]) for at in starts)
    return {file.select: file for file in files}


def retold(items: Mapping[int, SizedSource], tell: Callable[[fw_cfg.FwCfgFile], fw_cfg.FwCfgFile]) -> dict[int, SizedSource]:
    """The items, of which the directory says of each file what `tell` makes of it."""
    files = [fw_cfg.FW_CFG_FILE.pack(tell(file)) for file in directory(items).values()]
    count = len(files).to_bytes(fw_cfg.FW_CFG_FILE_COUNT_BYTES, "big")
    return {**items, fw_cfg.FW_CFG_FILE_DIR: BytesImage(b"".join((count, *files)))}


def with_directory(files: Mapping[bytes, SizedSource]) -> dict[int, SizedSource]:
    """Files by name as items by key, with the directory that lists them, sorted; BootError for a name that is too long."""
    items: dict[int, SizedSource] = {}
    directory = len(files).to_bytes(fw_cfg.FW_CFG_FILE_COUNT_BYTES, "big")
    for key, name in enumerate(sorted(files), fw_cfg.FW_CFG_FILE_FIRST):
        if len(name) >= fw_cfg.FW_CFG_MAX_FILE_PATH:
            raise BootError(
                f"fw_cfg has no room for a file name of {len(name)} bytes: {fw_cfg.FW_CFG_MAX_FILE_PATH - 1} at most"
            )
        directory += fw_cfg.FW_CFG_FILE.pack(fw_cfg.FwCfgFile(files[name].size, key, 0, name))
        items[key] = files[name]
    return {fw_cfg.FW_CFG_FILE_DIR: BytesImage(directory), **items}
