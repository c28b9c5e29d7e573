"""Faults of a host, as values: what goes wrong, and when. injection.py makes them happen."""

from typing import Final, NamedTuple

# Families, as --only names them.
DMA: Final = "dma"  # a transfer of fw_cfg
READ: Final = "read"  # an answer to a load from a device
WRITE: Final = "write"  # a store to a device
ITEM: Final = "item"  # what fw_cfg holds
RAM: Final = "ram"  # a bit, before it is read
REGISTER: Final = "register"  # a bit
FAMILIES: Final = (DMA, READ, WRITE, ITEM, RAM, REGISTER)
USUAL: Final = (DMA, READ, WRITE, ITEM)  # what a host can do wrong; the others are bits that flip by themselves

# What a transfer may do.
ERROR: Final = "error"  # it fails, and says so
NEVER: Final = "never"  # it does not end
NOTHING: Final = "nothing"  # it is done, but nothing was moved
# What an answer, an item or a store may be.
ONES: Final = "ones"  # as where nobody answers
ZEROS: Final = "zeros"
FLIP_LOW: Final = "flip-low"  # the lowest bit
FLIP_HIGH: Final = "flip-high"  # the highest bit of the value; of bytes, that of the last one
DROPPED: Final = "dropped"
ABSENT: Final = "absent"  # there is no such item
HALF: Final = "half"  # its second half is not there
SHORT: Final = "short"  # its last byte is not there
LIE_MORE: Final = "more"  # the directory says twice as many bytes
LIE_HALF: Final = "fewer"  # the directory says half as many

_WORDS: Final = {
    ERROR: "fails",
    NEVER: "never ends",
    NOTHING: "is done, but has moved nothing",
    ONES: "gives all ones",
    ZEROS: "gives 0",
    FLIP_LOW: "has its lowest bit flipped",
    FLIP_HIGH: "has its highest bit flipped",
    DROPPED: "is lost",
    ABSENT: "is not there",
    HALF: "has lost its second half",
    SHORT: "has lost its last byte",
    LIE_MORE: "is said to have twice its size",
    LIE_HALF: "is said to have half its size",
}


class Fault(NamedTuple):
    """One thing that goes wrong. `number` counts, from 0, the DMA transfers (DMA), the accesses to devices (READ, WRITE) or
    the instructions (RAM, REGISTER) that went well before; of an ITEM it is its key. `what` says which one that is, in words;
    `target` is the physical address (RAM) or the register; `address` is the linear address of the instruction that meets it,
    None of an item."""

    family: str
    how: str
    number: int
    what: str
    address: int | None
    target: int | str | None = None

    def __str__(self) -> str:
        return f"{self.what} {_WORDS[self.how]}"


def flipped(how: str, data: bytes) -> bytes:
    """The bytes, of which there is one at least, with the bit that `how` names flipped."""
    if how == FLIP_LOW:
        return bytes([data[0] ^ 1]) + data[1:]
    return data[:-1] + bytes([data[-1] ^ 0x80])


def spoilt(how: str, value: int, size: int) -> int:
    """What a read of `size` bytes gives instead of `value`."""
    highest = 1 << 8 * size - 1
    return {ONES: 2 * highest - 1, ZEROS: 0, FLIP_LOW: value ^ 1, FLIP_HIGH: value ^ highest}[how]
