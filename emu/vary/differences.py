"""What two handoffs of one boot differ in, in words: what the kernel would see otherwise."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from pvhboot.loader.memory import ReadableMemory

from ..bus import STORES, Access
from ..comparison import COMPARED
from ..session import Outcome
from .found import tables_in

_UNSPECIFIED: Final = frozenset({"esp", "gdtr_base", "gdtr_limit"})  # at a PVH entry: Xen docs/misc/pvh.pandoc
# What they lead to is compared itself.
_POINTERS: Final = frozenset({"ebx", "memmap_paddr", "modlist_paddr", "cmdline_paddr", "rsdp_paddr"})
# Devices that keep nothing of what is stored to them, by the names that Board and chipset give them; of PCI's address port it
# counts only what is stored through it.
_FORGETFUL: Final = frozenset({"", "fw_cfg", "fw_cfg-dma", "debugcon", "post", "serial", "pci-address", "rom"})
_PCI_ADDRESS, _PCI_CONFIG = "pci-address", "pci-config"


def differences(before: Outcome, after: Outcome) -> Iterator[str]:
    """A phrase for each number that is not the same in what engines are compared by (registers, segments, start_info and what
    it leads to), but for registers of which the ABI says nothing, and for where a thing lies that is the same; for each table
    that an operating system finds by itself; and for the first store that a device keeps."""
    for what, look in COMPARED.items():
        yield from _differences(what, _specified(look(before)), _specified(look(after)))
    yield from _table_differences(_tables(before), _tables(after))
    if before.accesses is not None and after.accesses is not None:
        yield from list(_differences("device store", tuple(_kept(before.accesses)), tuple(_kept(after.accesses))))[:1]


def memory_difference(before: ReadableMemory, after: ReadableMemory, start: int, end: int) -> int | None:
    """The first physical address in [start, end), all of it memory, where two machines do not hold the same."""
    one, other = before.read(start, end - start), after.read(start, end - start)
    if one == other:
        return None
    return start + next(at for at, (was, now) in enumerate(zip(one, other, strict=True)) if was != now)


def _specified(compared: Any) -> Any:
    if type(compared) is not tuple:
        return compared
    return tuple(part for part in compared if type(part) is not tuple or part[0] not in _UNSPECIFIED | _POINTERS)


def _tables(outcome: Outcome) -> dict[str, bytes]:
    assert outcome.handoff is not None
    assert outcome.tables is not None
    info = outcome.tables.start_info
    return tables_in(outcome.handoff.memory, 0 if info is None else info.rsdp_paddr)


def _table_differences(before: dict[str, bytes], after: dict[str, bytes]) -> Iterator[str]:
    for name, was in before.items():
        now = after.get(name)
        if now is None:
            yield f"{name}: not found"
        elif now != was:
            at = next((at for at, (one, other) in enumerate(zip(was, now, strict=False)) if one != other), None)
            yield (
                f"{name}: {len(was)} → {len(now)} bytes" if at is None else f"{name}, byte {at:#x}: {was[at]:#x} → {now[at]:#x}"
            )
    yield from (f"{name}: found, where there was none" for name in after if name not in before)


def _kept(accesses: Sequence[Access]) -> Iterator[Access]:
    """The stores that devices keep; those to PCI's configuration space at the address of the register."""
    selected = 0
    for access in accesses:
        if access.kind not in STORES:
            continue
        if access.device == _PCI_ADDRESS:
            selected = access.value
        elif access.device not in _FORGETFUL:
            yield access._replace(address=selected) if access.device == _PCI_CONFIG else access


def _differences(what: str, before: Any, after: Any) -> Iterator[str]:
    if before == after:
        return
    fields = getattr(before, "_fields", None)
    if fields is not None and type(before) is type(after):
        for field, was, now in zip(fields, before, after, strict=True):
            if field not in _POINTERS or not was or not now:
                yield from _differences(f"{what}.{field}", was, now)
    elif type(before) is tuple and type(after) is tuple:
        for number, (was, now) in enumerate(zip(before, after, strict=False)):
            named = type(was) is tuple and len(was) == 2 and was[0] == now[0] and isinstance(was[0], str)
            yield from _differences(was[0], was[1], now[1]) if named else _differences(f"{what} {number}", was, now)
        if len(before) != len(after):
            yield f"{what}: {len(before)} → {len(after)} of them"
    else:
        yield f"{what}: {_shown(before)} → {_shown(after)}"


def _shown(value: object) -> str:
    return hex(value) if isinstance(value, int) and not isinstance(value, bool) else repr(value)
