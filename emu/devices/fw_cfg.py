"""QEMU's fw_cfg on a PC: selector and data port, and the DMA interface.

Source: QEMU docs/specs/fw_cfg.rst; what it leaves open (reads beyond an item give zeros, a failed transfer has its error bit
set) as in hw/nvram/fw_cfg.c. A write, by DMA only, fails but in a file that is writeable.
"""

from collections.abc import Callable, Mapping
from typing import Final

from pvhboot.loader.fw_cfg import FileContents
from pvhboot.loader.image import FileImage, SizedSource
from pvhboot.loader.memory import GuestMemory
from pvhboot.shim.abi import fw_cfg as abi
from pvhboot.shim.errors import BootError

NAME: Final = "fw_cfg"  # as the log of accesses calls it
DMA_NAME: Final = "fw_cfg-dma"

_SELECTOR: Final = 0  # offset from FW_CFG_PORT
_DMA_LOW: Final = abi.FW_CFG_DMA_LOW_PORT - abi.FW_CFG_DMA_PORT
_PIECE: Final = 1 << 20  # bytes that are moved at once


class FwCfg:
    """Selector and data ports; `dma_ports` is the DMA register, None without DMA. `items` are the bytes by key. A
    transfer, of up to 4 GiB, fails where it is when the run `is_over`."""

    def __init__(
        self,
        items: Mapping[int, SizedSource],
        memory: GuestMemory,
        *,
        dma: bool = True,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._items = items
        self._item: SizedSource | None = items.get(abi.FW_CFG_SIGNATURE)
        self._offset = 0
        self._dma = (memory, is_over) if dma else None
        self.dma_address = 0  # what has been written of it

    @property
    def dma_ports(self) -> "_DmaPorts | None":
        """The DMA register. Not held from here, as it leads back."""
        return None if self._dma is None else _DmaPorts(self, *self._dma)

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 - either port
        """The next byte of the item, through either port; 0, and no byte taken, for a wider read."""
        if size != 1:
            return 0
        byte = bytearray(1)
        self.next_bytes(memoryview(byte))
        return byte[0]

    def write(self, offset: int, size: int, value: int) -> None:
        """Selects an item. A store to the data port, or of a single byte, does nothing."""
        if offset == _SELECTOR and size == abi.FW_CFG_PORTS:
            self.select(value)

    def select(self, key: int) -> None:
        """Makes an item the next to be read, from its start. The write channel's bit is not part of the key."""
        self._item = self._items.get(key & ~abi.FW_CFG_WRITE_CHANNEL)
        self._offset = 0

    def skip(self, size: int) -> None:
        """Passes over so many bytes of the item."""
        if self._item is not None:
            self._offset = min(self._offset + size, max(self._item.size, self._offset))

    def next_bytes(self, buffer: memoryview) -> None:
        """Fills the buffer with what comes next, zeros behind the end."""
        there = 0
        if self._item is not None:
            there = max(0, min(len(buffer), self._item.size - self._offset))
            if there:
                self._item.read_into(self._offset, buffer[:there])
                self._offset += there
        buffer[there:] = bytes(len(buffer) - there)

    @property
    def file(self) -> FileImage | None:
        """The item, if it is a file."""
        return self._item if isinstance(self._item, FileImage) else None

    def load_file(self, memory: GuestMemory, paddr: int, size: int) -> None:
        """Puts the next bytes of a file, which has as many left, to a physical address in RAM; whole pages are mapped, if they
        lie there as in the file. BootError as of GuestMemory.load."""
        assert self.file is not None
        memory.load(paddr, size, self.file, self._offset)
        self._offset += size

    @property
    def left(self) -> int:
        """Bytes from here to the item's end."""
        return 0 if self._item is None else max(0, self._item.size - self._offset)

    def store(self, data: bytes) -> bool:
        """Writes to the item, of which so many bytes are left; whether it can be written. The bytes are passed over anyway."""
        item, offset = self._item, self._offset
        self.skip(len(data))
        if not isinstance(item, FileContents) or not item.writeable:
            return False
        item.write(offset, data)
        return True


class _DmaPorts:
    """The 64-bit big-endian register. A store to its lower half executes the descriptor that it then points to."""

    def __init__(self, fw_cfg: FwCfg, memory: GuestMemory, is_over: Callable[[], bool]) -> None:
        self._fw_cfg = fw_cfg
        self._memory = memory
        self._is_over = is_over

    def read(self, offset: int, size: int) -> int:
        """A piece of the signature, by which software knows that there is DMA."""
        return int.from_bytes(abi.FW_CFG_DMA_SIGNATURE[offset : offset + size].ljust(size, b"\xff"), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """A half of the address; other sizes and places do nothing."""
        half = int.from_bytes(value.to_bytes(size, "little"), "big")
        if (offset, size) == (0, 4):
            self._fw_cfg.dma_address = half << 32
        elif (offset, size) == (_DMA_LOW, 4):
            address, self._fw_cfg.dma_address = self._fw_cfg.dma_address | half, 0
            self._execute(address)

    def _execute(self, paddr: int) -> None:
        try:
            access = abi.FW_CFG_DMA.unpack(self._memory.fetch(paddr, abi.FW_CFG_DMA.size))
        except BootError:
            control = abi.FW_CFG_DMA_CTL_ERROR
        else:
            control = self._transfer(access)
        try:
            with self._memory.writing(paddr, 4) as word:
                word[:] = control.to_bytes(4, "big")
        except BootError:
            pass  # the descriptor lies where no memory is: there is nobody to tell

    def _transfer(self, access: abi.FwCfgDmaAccess) -> int:
        """Does what a descriptor says; its new control word. What fails passes over the bytes all the same."""
        if access.control & abi.FW_CFG_DMA_CTL_SELECT:
            self._fw_cfg.select(access.control >> abi.FW_CFG_DMA_CTL_KEY_SHIFT)
        if access.control & abi.FW_CFG_DMA_CTL_READ:
            end = access.address + access.length
            at = access.address
            try:
                while at < end:
                    if self._is_over():
                        raise BootError("the run is over")
                    size = min(end - at, self._memory.region(at, 1).span.end - at)
                    if self._fw_cfg.file is not None and self._fw_cfg.left:
                        size = min(size, self._fw_cfg.left)
                        with self._memory.writing(at, size):
                            self._fw_cfg.load_file(self._memory, at, size)
                    else:
                        size = min(size, _PIECE)
                        with self._memory.writing(at, size) as piece:
                            self._fw_cfg.next_bytes(piece)
                    at += size
            except BootError:
                self._fw_cfg.skip(end - at)
                return abi.FW_CFG_DMA_CTL_ERROR
        elif access.control & abi.FW_CFG_DMA_CTL_WRITE:
            return self._write(access)
        elif access.control & abi.FW_CFG_DMA_CTL_SKIP:
            self._fw_cfg.skip(access.length)
        return 0

    def _write(self, access: abi.FwCfgDmaAccess) -> int:
        """Memory to the item; the new control word. More than the item takes is not fetched."""
        if not access.length:
            return 0
        if access.length <= self._fw_cfg.left:
            try:
                data = self._memory.fetch(access.address, access.length)
            except BootError:
                pass
            else:
                return 0 if self._fw_cfg.store(data) else abi.FW_CFG_DMA_CTL_ERROR
        self._fw_cfg.skip(access.length)
        return abi.FW_CFG_DMA_CTL_ERROR
