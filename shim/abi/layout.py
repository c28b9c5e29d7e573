"""Packed structures: one declaration gives the codec, the offsets and the assembly symbols."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

RecordT = TypeVar("RecordT", bound=tuple[Any, ...])


class Field(NamedTuple):
    """One member of a structure: offset and size in bytes."""

    offset: int
    size: int


class Layout(Generic[RecordT]):
    """A structure as it lies in memory, declared by a NamedTuple and one struct code a field (I: u32, Q: u64, 56s: bytes).

    `symbol_prefix` names it in the assembly: PREFIX_FIELD is a field's offset, SIZEOF_PREFIX the size, both in bytes.
    """

    def __init__(self, record: type[RecordT], codes: Sequence[str], symbol_prefix: str, *, big_endian: bool = False) -> None:
        order = ">" if big_endian else "<"
        self._record = record
        self._struct = struct.Struct(order + "".join(codes))
        self._prefix = symbol_prefix
        self.size: int = self._struct.size
        fields: dict[str, Field] = {}
        offset = 0
        for name, code in zip(record.__annotations__, codes, strict=True):
            fields[name] = Field(offset, struct.calcsize(order + code))
            offset += fields[name].size
        self.fields: Mapping[str, Field] = fields

    def pack(self, record: RecordT) -> bytes:
        """The record as bytes; struct.error if a value does not fit its field."""
        return self._struct.pack(*record)

    def unpack(self, data: bytes | bytearray | memoryview, offset: int = 0) -> RecordT:
        """The record that lies at `offset` bytes; struct.error if the data ends before it does."""
        return self._record(*self._struct.unpack_from(data, offset))

    def unpack_all(self, data: bytes) -> Iterator[RecordT]:
        """The records that follow one another in `data`; what is left behind the last whole one is passed over."""
        for values in self._struct.iter_unpack(data[: len(data) // self.size * self.size]):
            yield self._record(*values)

    def symbols(self) -> dict[str, int]:
        """Offsets and size, in bytes, as the assembly names them."""
        named = {f"{self._prefix}_{name.upper()}": field.offset for name, field in self.fields.items()}
        return named | {f"SIZEOF_{self._prefix}": self.size}
