"""What the bits mean of registers, selectors and descriptors that a boot has had: each once, for all steps."""

from collections.abc import Iterable

from ..bitfields import REGISTERS_OF_BITS, BitField, descriptor_fields, register_fields, selector_fields
from .beside import Beside
from .columns import Json

_ALL_BITS = (1 << 64) - 1


def meanings_json(beside: Beside) -> Json:
    """`bits`, `descriptors`, `selectors`, `gdts` and `segment_loads` of the page's data."""
    values = {value for gdt in beside.gdts for value in gdt.descriptors}
    values |= {load.descriptor for load in beside.loads if load.descriptor is not None}
    selectors = {load.selector for load in beside.loads}
    return {
        "bits": {name: _bits(name) for name in REGISTERS_OF_BITS},
        "descriptors": {_hex64(value): _fields(descriptor_fields(value)) for value in sorted(values)},
        "selectors": {f"{selector:04x}": _fields(selector_fields(selector)) for selector in sorted(selectors)},
        "gdts": [[gdt.step, gdt.base, gdt.limit, [_hex64(value) for value in gdt.descriptors]] for gdt in beside.gdts],
        "segment_loads": [
            [load.step, load.register, f"{load.selector:04x}", None if load.descriptor is None else _hex64(load.descriptor)]
            for load in beside.loads
        ],
    }


def _hex64(value: int) -> str:
    return f"{value:016x}"


def _fields(fields: Iterable[BitField]) -> list[list[object]]:
    return [list(field) for field in fields]


def _bits(name: str) -> list[list[object]]:
    """Of each named bit its place, its name, and what it means when clear and when set."""
    pairs = zip(register_fields(name, 0), register_fields(name, _ALL_BITS), strict=True)
    return [[clear.high, clear.low, clear.name, [clear.meaning, held.meaning]] for clear, held in pairs]
