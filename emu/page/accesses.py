"""Accesses to devices in words: what the firmware asks them, and what they say."""

from collections.abc import Callable, Mapping
from typing import Final

from pvhboot.loader.printable import one_line
from pvhboot.shim.abi import apic, devices, fw_cfg, pci, pic, pit
from pvhboot.shim.abi.chipset import PCIEXBAR, Chipset
from pvhboot.shim.abi.firmware import MARKER_PORTS, PANICS, POSTS

from ..bus import IN, LOADS, OUT, PORT_KINDS
from ..devices.fw_cfg import DMA_NAME
from ..devices.fw_cfg import NAME as FW_CFG_NAME
from ..effects import Effect
from ..fw_cfg_words import ITEM_WORDS
from ..pci_words import register_text
from ..timeline.recorder import marker_name

_NUMBER: Final = 8  # bytes at most

# Devices by the names that boards give them.
DEVICES: Final[Mapping[str, str]] = {
    "": "nobody",
    "apm": "the port that switches ACPI on",
    "cmos": "CMOS memory and clock",
    "debug-exit": "QEMU's debug-exit port",
    "debugcon": "the debug console",
    "ecam": "PCI configuration space in memory",
    "elcr": "edge or level of interrupts",
    DMA_NAME: "QEMU's fw_cfg, by DMA",
    FW_CFG_NAME: "QEMU's fw_cfg, by port",
    "i8042": "the keyboard controller",
    "ioapic": "the I/O APIC",
    "lapic": "the local APIC",
    "pci-address": "PCI: which register",
    "pci-config": "PCI: its contents",
    "pic": "the first interrupt controller",
    "pic2": "the second interrupt controller",
    "pit": "the interval timer",
    "pm": "power management",
    "port61": "speaker and timer 2",
    "port92": "fast reset and A20",
    "post": "the POST port",
    "reset-control": "the reset control register",
    "rom": "the ROM",
    "serial": "COM1",
}

_UART: Final[Mapping[tuple[str, int], str]] = {
    (IN, devices.UART_RBR): "received byte",
    (IN, devices.UART_IIR): "which interrupt",
    (OUT, devices.UART_FCR): "FIFO control",
}
_UART_BOTH: Final[Mapping[int, str]] = {
    devices.UART_IER: "which interrupts",
    devices.UART_LCR: "line format",
    devices.UART_MCR: "modem control",
    devices.UART_LSR: "line status",
    devices.UART_MSR: "modem status",
    devices.UART_SCR: "scratch register",
}


class AccessWords:
    """Says what each access means, one after the other, as some mean something only behind others. `files` are the names of
    fw_cfg's files by their keys; `codes` is what POST codes say, which is each firmware's own; `chipset` is the machine's."""

    def __init__(self, files: Mapping[int, str], codes: Mapping[int, str], chipset: Chipset | None) -> None:
        self._files, self._codes, self._chipset = files, codes, chipset
        self._key = fw_cfg.FW_CFG_SIGNATURE
        self._offset = 0  # in the item
        self._address = 0  # of PCI
        self._index = 0  # of CMOS
        self._latch = False  # of COM1: the divisor is at its first ports
        self.printed = b""  # by the last access, on COM1 or the debug console
        self._speakers: Mapping[str, Callable[[Effect], str]] = {
            "cmos": self._cmos,
            "debugcon": self._debug_console,
            FW_CFG_NAME: self._fw_cfg,
            "pci-address": self._pci_address,
            "pci-config": self._pci_config,
            "serial": self._serial,
            "post": self._post,
            "rom": lambda _effect: "nothing happens: it cannot be written",
        }

    def tell(self, effect: Effect, fetched: bytes | None = None, stored: Mapping[int, str] = {}) -> str:
        """In words; empty: there is no more to say than the device's name. `fetched` is what the device has read in memory
        for it, `stored` what it has written there, as Effect.data, by physical address."""
        self.printed = b""
        if effect.device == DMA_NAME:
            return self._dma(effect, fetched, stored)
        if effect.device in self._speakers:
            return self._speakers[effect.device](effect)
        if effect.device == "":
            return _nobody(effect)
        return _plain(effect)

    def item(self, key: int) -> str:
        """What an item of fw_cfg is called."""
        key &= ~fw_cfg.FW_CFG_WRITE_CHANNEL
        if key in self._files:
            return f"file {self._files[key]}"
        return ITEM_WORDS.get(key, f"item {key:#06x}")

    def _select(self, key: int) -> str:
        self._key, self._offset = key, 0
        return self.item(key)

    def _fw_cfg(self, effect: Effect) -> str:
        if effect.kind == OUT:
            return f"selects {self._select(effect.value)}" if effect.value is not None else "selects items"
        count, start = effect.size * effect.times, self._offset
        self._offset += count
        which = f"byte {start}" if count == 1 else f"bytes {start} to {start + count - 1}"
        return f"reads {which} of {self.item(self._key)}"

    def _dma(self, effect: Effect, fetched: bytes | None, stored: Mapping[int, str]) -> str:
        if effect.kind == IN:
            return "asks whether there is DMA: its signature says so"
        if effect.at != fw_cfg.FW_CFG_DMA_LOW_PORT:
            return "the upper half of the descriptor's address"
        if fetched is None or len(fetched) != fw_cfg.FW_CFG_DMA.size:
            return "starts a transfer, whose descriptor lies where no memory is"
        control, length, address = fw_cfg.FW_CFG_DMA.unpack(fetched)
        if control & fw_cfg.FW_CFG_DMA_CTL_SELECT:
            self._select(control >> fw_cfg.FW_CFG_DMA_CTL_KEY_SHIFT)
        item = self.item(self._key)
        if control & fw_cfg.FW_CFG_DMA_CTL_READ:
            return f"reads {length} bytes of {item} to {address:#x}{_number(stored.get(address, ''))}"
        if control & fw_cfg.FW_CFG_DMA_CTL_WRITE:
            return f"writes {length} bytes from {address:#x} to {item}"
        if control & fw_cfg.FW_CFG_DMA_CTL_SKIP:
            return f"skips {length} bytes of {item}"
        if control & fw_cfg.FW_CFG_DMA_CTL_SELECT:
            return f"selects {item}"
        return f"a transfer that does nothing: its control word is {control:#x}"

    def _pci_address(self, effect: Effect) -> str:
        if effect.kind == OUT and effect.value is not None and effect.size == 4:
            self._address = effect.value
            return (
                f"chooses {register_text(self._chipset, effect.value)}"
                if effect.value & pci.PCI_CONFIG_ENABLE
                else "chooses nothing"
            )
        return _plain(effect)

    def _pci_config(self, effect: Effect) -> str:
        register = register_text(self._chipset, self._address & ~3 | effect.at - pci.PCI_CONFIG_DATA)
        if effect.kind == IN:
            return f"reads {register}" + _absent(effect)
        return f"writes {register}"

    def _cmos(self, effect: Effect) -> str:
        if effect.at == devices.CMOS_PORT:
            if effect.value is not None:
                self._index = effect.value & 0x7F
            return f"chooses byte {self._index:#04x}"
        return f"{'reads' if effect.kind == IN else 'writes'} byte {self._index:#04x}"

    def _serial(self, effect: Effect) -> str:
        offset = effect.at - devices.COM1_PORT
        if offset in (devices.UART_DLL, devices.UART_DLM) and self._latch:
            return "the baud rate's divisor"
        if (effect.kind, offset) == (OUT, devices.UART_THR):
            return self._prints(effect)
        if (effect.kind, offset) == (OUT, devices.UART_LCR) and effect.value is not None:
            self._latch = bool(effect.value & devices.UART_LCR_DLAB)
        return _UART.get((effect.kind, offset)) or _UART_BOTH.get(offset, "")

    def _post(self, effect: Effect) -> str:
        if effect.kind == IN or effect.value is None:
            return ""
        known = self._codes.get(effect.value)
        return f"POST code {effect.value:#04x}" + (f": {known}" if known else "")

    def _debug_console(self, effect: Effect) -> str:
        return "asks whether it is there" if effect.kind == IN else self._prints(effect)

    def _prints(self, effect: Effect) -> str:
        self.printed = _moved(effect)
        text = self.printed.decode("ascii", "replace")
        return f'prints "{one_line(text)}"' if text else f"prints {effect.size * effect.times} bytes"


# Of pvhboot's own firmwares.
POST_CODES: Final[Mapping[int, str]] = {
    **{post.code: post.text for post in POSTS},
    **{panic.code: f"panic {panic.name}: {panic.text}" for panic in PANICS},
}


def _moved(effect: Effect) -> bytes:
    """The bytes of an access, as far as they are known."""
    if effect.value is not None:
        return effect.value.to_bytes(effect.size, "little")
    return b"" if ":" in effect.data else bytes.fromhex(effect.data)


def _number(data: str) -> str:
    """What was moved, if it is a number of a few bytes."""
    if not data or ":" in data or len(data) > 2 * _NUMBER:
        return ""
    return f": {int.from_bytes(bytes.fromhex(data), 'little'):#x}"


def _absent(effect: Effect) -> str:
    return ": nothing is there" if effect.value == (1 << 8 * effect.size) - 1 else ""


def _nobody(effect: Effect) -> str:
    if effect.at in MARKER_PORTS and effect.kind == OUT and effect.value is not None:
        return f"a mark of time: {marker_name(effect.value)}"
    where = f"port {effect.at:#x}" if effect.kind in PORT_KINDS else f"{effect.at:#x}"
    return f"nobody answers at {where}" + (": reads as all ones" if effect.kind in LOADS else "")


def _plain(effect: Effect) -> str:
    base, names = _REGISTERS.get(effect.device, (None, {}))
    if base is None:
        return ""
    offset = effect.at - base
    return f"{'reads' if effect.kind in LOADS else 'writes'} {names.get(offset, f'register {offset:#x}')}"


_PIC: Final[Mapping[int, str]] = {0: "command and status", 1: "the mask"}

# Where the registers of a device begin, and what some are called by their offsets.
_REGISTERS: Final[Mapping[str, tuple[int, Mapping[int, str]]]] = {
    "lapic": (
        apic.LOCAL_APIC,
        {
            paddr - apic.LOCAL_APIC: name
            for paddr, name in (
                (apic.APIC_ID, "its ID"),
                (apic.APIC_VERSION, "its version"),
                (apic.APIC_TPR, "the task priority"),
                (apic.APIC_EOI, "the end of an interrupt"),
                (apic.APIC_SVR, "whether it is on"),
                (apic.APIC_ICR, "a message to processors"),
                (apic.APIC_LVT_TIMER, "the timer's interrupt"),
                (apic.APIC_TIMER_INITIAL, "the timer's start"),
                (apic.APIC_TIMER_CURRENT, "the timer"),
            )
        },
    ),
    "ioapic": (apic.IO_APIC, {apic.IO_APIC_INDEX: "which register", apic.IO_APIC_DATA: "its contents"}),
    "pic": (pic.PIC_MASTER_PORT, _PIC),
    "pic2": (pic.PIC_SLAVE_PORT, _PIC),
    "pit": (pit.PIT_PORT, {0: "channel 0", 1: "channel 1", 2: "channel 2", pit.PIT_CONTROL: "the control word"}),
    "ecam": (PCIEXBAR, {}),
}
