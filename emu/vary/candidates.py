"""What can go wrong in a boot: faults of its host, chosen by what the boot has done."""

from collections.abc import Iterator, Sequence
from typing import Final

from pvhboot.loader.fw_cfg import directory
from pvhboot.shim.abi import fw_cfg

from ..bus import LOADS, OUT, STORES
from ..engines.base import GENERAL
from . import faults
from .faults import Fault
from .survey import Met, NotedItems, Survey

_ITEM_NAMES: Final = {
    getattr(fw_cfg, f"FW_CFG_{name}"): name
    for name in (
        *("SIGNATURE", "ID", "RAM_SIZE", "NB_CPUS", "KERNEL_ADDR", "KERNEL_SIZE", "KERNEL_ENTRY", "KERNEL_DATA"),
        *("INITRD_ADDR", "INITRD_SIZE", "INITRD_DATA", "CMDLINE_SIZE", "CMDLINE_DATA"),
        *("SETUP_SIZE", "SETUP_DATA", "FILE_DIR"),
    )
}


def host_faults(survey: Survey, items: NotedItems | None, families: Sequence[str] = faults.USUAL) -> list[Fault]:
    """What can go wrong in the boot that was surveyed, of these families. `items` are those of its fw_cfg, None without.

    Of the accesses that one instruction makes alike to one port or address, of its loads and of its executions the first is
    taken, and of the accesses the last, too; of the transfers each."""
    makers = {
        faults.DMA: lambda: _dma_faults(survey),
        faults.READ: lambda: _access_faults(survey, LOADS, faults.READ),
        faults.WRITE: lambda: _access_faults(survey, STORES, faults.WRITE),
        faults.ITEM: lambda: _item_faults(items),
        faults.RAM: lambda: _ram_faults(survey),
        faults.REGISTER: lambda: _register_faults(survey),
    }
    return [fault for family in families for fault in makers[family]()]


def _transfers(survey: Survey) -> list[Met]:
    wanted = OUT, fw_cfg.FW_CFG_DMA_LOW_PORT, 4
    return [met for met in survey.accesses if met.access[:3] == wanted and met.access.device]


def _dma_faults(survey: Survey) -> Iterator[Fault]:
    for number, met in enumerate(_transfers(survey)):
        for how in (faults.ERROR, faults.NEVER, faults.NOTHING, faults.FLIP_LOW, faults.FLIP_HIGH):
            yield Fault(faults.DMA, how, number, f"DMA transfer {number}", met.address)


def _access_faults(survey: Survey, kinds: tuple[str, ...], family: str) -> Iterator[Fault]:
    reading = family == faults.READ
    ways = (faults.ONES, faults.ZEROS, faults.FLIP_LOW, faults.FLIP_HIGH) if reading else (faults.DROPPED,)
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, met in enumerate(survey.accesses):
        if met.access.kind in kinds:
            groups.setdefault((met.address, *met.access[:3]), []).append(number)
    for number in sorted({number for group in groups.values() for number in (group[0], group[-1])}):
        access, address, _ = survey.accesses[number]
        device = f" ({access.device})" if access.device else ""
        what = f"access {number}, {access.kind} of {access.size} bytes at {access.address:#x}{device},"
        seen = {access.value}
        for how in ways:
            value = faults.spoilt(how, access.value, access.size) if reading else None
            if value not in seen:
                seen |= {value} if value is not None else set()
                yield Fault(family, how, number, what, address)


def _item_faults(items: NotedItems | None) -> Iterator[Fault]:
    """Of the items that were asked for."""
    if items is None:
        return
    files = directory(items)
    for key in sorted(items.asked):
        size = items[key].size
        if key in files:
            name = f"fw_cfg's file {files[key].name.rstrip(bytes(1)).decode(errors='replace')}"
        else:
            name = f"fw_cfg's {_ITEM_NAMES.get(key, hex(key))}"
        ways = [faults.ABSENT, faults.SHORT, faults.HALF, faults.FLIP_LOW, faults.FLIP_HIGH] if size else []
        if key in files:
            ways += [faults.LIE_MORE, faults.LIE_HALF]
        for how in ways:
            yield Fault(faults.ITEM, how, key, name, None)


def _ram_faults(survey: Survey) -> Iterator[Fault]:
    seen = set()
    for access, address, instructions in survey.loads:
        if (address, access.address) in seen:
            continue
        seen.add((address, access.address))
        for how, target in ((faults.FLIP_LOW, access.address), (faults.FLIP_HIGH, access.address + access.size - 1)):
            what = f"RAM at {target:#x}, before instruction {instructions} reads it,"
            yield Fault(faults.RAM, how, instructions, what, address, target)


def _register_faults(survey: Survey) -> Iterator[Fault]:
    for address, instructions in sorted(survey.first.items(), key=lambda item: item[1]):
        for register in GENERAL:
            for how in (faults.FLIP_LOW, faults.FLIP_HIGH):
                what = f"{register}, before instruction {instructions},"
                yield Fault(faults.REGISTER, how, instructions, what, address, register)
