"""What a firmware says to devices: items of fw_cfg by name, registers of PCI's configuration space, the rest by port."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from pvhboot.loader.image import SizedSource
from pvhboot.shim.abi import fw_cfg, pci
from pvhboot.shim.machines import MachineSpec

from ..bus import IN, KINDS, LOADS, OUT
from ..effects import DMA, STORE, Effect
from ..fw_cfg_words import ITEM_WORDS
from ..pci_words import register_text
from ..recent import swapped
from ..trace import Record
from .told import Spoken
from .words import counted

_FW_CFG_PORTS: Final = range(fw_cfg.FW_CFG_PORT, fw_cfg.FW_CFG_DMA_PORT + fw_cfg.FW_CFG_DMA_PORTS)
_NUMBER: Final = 8  # bytes at most of what is shown as a number
_WORD: Final = 4  # bytes
_SELECTION: Final = f"{OUT} {fw_cfg.FW_CFG_PORT:#x}"

# Those that are no numbers.
_BYTES: Final = (
    *(fw_cfg.FW_CFG_SIGNATURE, fw_cfg.FW_CFG_KERNEL_DATA, fw_cfg.FW_CFG_INITRD_DATA, fw_cfg.FW_CFG_CMDLINE_DATA),
    *(fw_cfg.FW_CFG_SETUP_DATA, fw_cfg.FW_CFG_FILE_DIR),
)


def is_fw_cfg(effect: Effect) -> bool:
    """An access to one of its ports."""
    return effect.kind in KINDS and effect.at in _FW_CFG_PORTS and bool(effect.device)


class Transfer(NamedTuple):
    """A piece of an item that went to memory by DMA. The name is that of the file, or empty."""

    name: str
    size: int
    paddr: int


class _Event(NamedTuple):
    """`data`: a byte of fw_cfg's, or several, that came by its data port; `device`: another one, whose accesses in a row are
    told as one."""

    record: int
    spoken: Spoken
    data: bytes = b""
    device: str = ""


class Traffic:
    """All that the records say to devices. `items` are fw_cfg's, `files` the names of those that have one, by key."""

    def __init__(
        self, records: Sequence[Record], spec: MachineSpec, items: Mapping[int, SizedSource], files: Mapping[int, str]
    ) -> None:
        self._spec, self._items, self._files = spec, items, files
        self._words: dict[int, int] = {}  # of memory, as the records store them
        self._key: int | None = fw_cfg.FW_CFG_SIGNATURE
        self._config: int | None = None  # what PCI_CONFIG_ADDRESS holds
        self.transfers: list[Transfer] = []
        self._events = [event for record in records for event in self._of(record)]

    def of(self, records: Iterable[Record]) -> list[Spoken]:
        """What these records say; alike ones in a row are one, and so are an item's selection and its bytes."""
        wanted = {record.number for record in records}
        found: list[_Event] = []
        for event in self._events:
            if event.record not in wanted:
                continue
            if found and (one := _joined(found[-1], event)) is not None:
                found[-1] = one
            else:
                found.append(event)
        return [_whole(event) for event in found]

    def _of(self, record: Record) -> Iterator[_Event]:
        moved = [effect for effect in record.effects if effect.kind == DMA]
        for effect in record.effects:
            if effect.kind == STORE and effect.value is not None and effect.size == _WORD:
                self._words[effect.at] = effect.value
            elif effect.kind == OUT and effect.at == pci.PCI_CONFIG_ADDRESS and effect.value is not None:
                self._config = effect.value  # told with what follows
            elif effect.kind in KINDS:
                is_byte = effect.kind == IN and effect.at == fw_cfg.FW_CFG_DATA_PORT and bool(effect.device)
                is_told = is_fw_cfg(effect) or effect.at & ~3 == pci.PCI_CONFIG_DATA
                data, device = _bytes_of(effect) if is_byte else b"", "" if is_told else effect.device
                yield _Event(record.number, self._said(effect, moved), data, device)

    def _said(self, effect: Effect, moved: Sequence[Effect]) -> Spoken:
        access = f"{effect.kind} {effect.at:#x}"
        if is_fw_cfg(effect):
            return Spoken(access, self._fw_cfg(effect, moved), effect.times)
        if effect.at & ~3 == pci.PCI_CONFIG_DATA and effect.value is not None and self._config is not None:
            where = register_text(self._spec.chipset, self._config | effect.at & 3)
            answer = "" if effect.device else ", nobody answers"
            value = f"{'gives' if effect.kind in LOADS else 'becomes'} {effect.value:#0{2 * effect.size + 2}x}"
            return Spoken(f"out {pci.PCI_CONFIG_ADDRESS:#x}, {access}", f"PCI {where} {value}{answer}")
        if not effect.device:
            return Spoken(access, "nobody answers", effect.times)
        word = "gives" if effect.kind in LOADS else "gets"
        value = "" if effect.value is None else f" {word} {effect.value:#x}"
        return Spoken(access, f"{effect.device}{value}", effect.times)

    def _fw_cfg(self, effect: Effect, moved: Sequence[Effect]) -> str:
        if effect.kind == IN and effect.at >= fw_cfg.FW_CFG_DMA_PORT:
            data = b"" if effect.value is None else effect.value.to_bytes(effect.size, "little")
            return f"fw_cfg: the DMA register says {data.decode('ascii', 'replace')!r}"
        if effect.at >= fw_cfg.FW_CFG_DMA_PORT:
            if effect.at != fw_cfg.FW_CFG_DMA_LOW_PORT or effect.value is None:
                return "fw_cfg: the upper half of the descriptor's address"
            return self._transfer(swapped(effect.value), moved)
        if effect.kind == OUT:
            self._key = effect.value
            return f"fw_cfg: {self._item_text(self._key)}"
        return "fw_cfg: more of it"

    def _transfer(self, descriptor: int, moved: Sequence[Effect]) -> str:
        """Of a DMA: what the descriptor has said, as far as its words were seen, and what came of it."""
        control = self._words.get(descriptor)
        data = [effect for effect in moved if effect.at != descriptor]
        if control is None:
            came = "".join(f", {counted(effect.size, 'byte')} to {effect.at:#x}" for effect in data)
            return f"fw_cfg by DMA, descriptor at {descriptor:#x}{came}"
        said = swapped(control)
        if said & fw_cfg.FW_CFG_DMA_CTL_SELECT:
            self._key = said >> fw_cfg.FW_CFG_DMA_CTL_KEY_SHIFT
        size = swapped(self._words.get(descriptor + fw_cfg.FW_CFG_DMA.fields["length"].offset, 0))
        paddr = swapped(self._words.get(descriptor + fw_cfg.FW_CFG_DMA.fields["address"].offset + 4, 0))
        item = self._item_text(self._key)
        if said & fw_cfg.FW_CFG_DMA_CTL_WRITE:
            return f"fw_cfg by DMA: {counted(size, 'byte')} from {paddr:#x} to {item}"
        if said & fw_cfg.FW_CFG_DMA_CTL_SKIP:
            return f"fw_cfg by DMA: {item}, {counted(size, 'byte')} passed over"
        self.transfers.append(Transfer(self._files.get(self._key or 0, ""), size, paddr))
        is_number = self._key in ITEM_WORDS and self._key not in _BYTES and size <= _NUMBER
        value = next((_number(effect.data) for effect in data if is_number and effect.size == size), "")
        return f"fw_cfg by DMA: {item}, {counted(size, 'byte')} to {paddr:#x}{value}"

    def _item_text(self, key: int | None) -> str:
        if key is None:
            return "an item that is not known"
        bare = key & ~fw_cfg.FW_CFG_WRITE_CHANNEL
        if bare in self._files:
            return f"file {self._files[bare]} (key {key:#x})"
        known = ITEM_WORDS.get(bare, "an item" if bare in self._items else "an item that is not there")
        return f"{known} (key {key:#x})"


def _joined(before: _Event, event: _Event) -> _Event | None:
    """Two events as one, if they are: a repetition, or more of an item of fw_cfg."""
    times = before.spoken.times + event.spoken.times
    if event.data and (before.data or before.spoken.access == _SELECTION):
        if not before.data:
            return before._replace(
                spoken=before.spoken._replace(access=f"{_SELECTION}, {event.spoken.access}"), data=event.data
            )
        return before._replace(data=before.data + event.data)
    if event.device and event.device == before.device:
        accesses = before.spoken.access.split(", ")
        access = ", ".join((*accesses, *({event.spoken.access} - set(accesses))))
        return before._replace(spoken=Spoken(access, event.device, times))
    if event.data or before.data or event.spoken[:2] != before.spoken[:2]:
        return None
    return before._replace(spoken=before.spoken._replace(times=times))


def _whole(event: _Event) -> Spoken:
    if not event.data:
        return event.spoken
    shown = event.data[:_NUMBER].hex(" ") + (" …" if len(event.data) > _NUMBER else "")
    spoken = event.spoken
    return Spoken(f"{spoken.access} × {len(event.data):,}", f"{spoken.meaning}, {counted(len(event.data), 'byte')}: {shown}")


def _bytes_of(effect: Effect) -> bytes:
    if effect.value is not None:
        return effect.value.to_bytes(effect.size, "little")
    return bytes(effect.times) if ":" in effect.data else bytes.fromhex(effect.data)


def _number(data: str) -> str:
    return f", which is {int.from_bytes(bytes.fromhex(data), 'little'):#x}"
