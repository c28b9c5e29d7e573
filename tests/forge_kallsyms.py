"""Forges the kallsyms tables of Linux's scripts/kallsyms.c as each release lays them out, and a kernel that carries them."""

import struct
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from forge_elf import entry_note, forge
from pvhboot.shim.abi.elf import PF_R, PF_X, PT_LOAD
from pvhboot.shim.elfwriter import ElfSegment

PADDR = 0x1000000
MEMSZ = 0x800000
BASES = {64: 0xFFFFFFFF81000000, 32: 0xC1000000}  # where that is mapped


class Ksym(NamedTuple):
    """A symbol: its virtual address, the letter that nm tells, its name."""

    address: int
    type: str
    name: str


class Release(NamedTuple):
    """How one lays the tables out. `offsets`: "relative"; "percpu", where per-CPU symbols are absolute; "place", each from its
    own place; "absolute". `sequence`: bytes for each symbol in seqs_of_names."""

    bits: int
    offsets_first: bool
    offsets: str
    sequence: int
    align: int


RELEASES = {
    "6.1": Release(64, True, "percpu", 0, 8),
    "6.1-up": Release(64, True, "relative", 0, 8),
    "6.1-stable": Release(64, True, "percpu", 3, 8),
    "6.1-i386": Release(32, True, "relative", 3, 4),
    "6.12": Release(64, False, "percpu", 3, 8),
    "6.16": Release(64, False, "relative", 3, 8),
    "6.16-i386": Release(32, False, "relative", 3, 4),
    "7.0": Release(64, False, "place", 3, 4),
    "7.0-i386": Release(32, False, "absolute", 3, 4),
}


def tables(symbols: Sequence[Ksym], release: Release, at: int) -> bytes:
    """The tables from the address `at` on, of symbols that are sorted by address; all that are not absolute ("A") lie behind
    the first of them."""
    tokens, codes = _compress([symbol.type + symbol.name for symbol in symbols])
    names, starts = b"", []
    for name in codes:
        starts.append(len(names))
        names += (bytes([len(name)]) if len(name) < 128 else bytes([len(name) & 127 | 128, len(name) >> 7])) + name
    base = next(symbol.address for symbol in symbols if symbol.type != "A")
    by_name = sorted(range(len(symbols)), key=lambda number: symbols[number].name)
    pointer = "<Q" if release.bits == 64 else "<I"
    relative_base = [struct.pack(pointer, base)] if release.offsets in ("relative", "percpu") else []
    front = [struct.pack("<I", len(symbols)), names, struct.pack(f"<{len(starts[::256])}I", *starts[::256])]
    sequences = [b"".join(number.to_bytes(release.sequence, "big") for number in by_name)] if release.sequence else []
    tokens_and_index = token_table(tokens)
    out = b""

    def put(parts: Sequence[bytes]) -> None:
        nonlocal out
        for part in parts:
            out += bytes(-(at + len(out)) % release.align) + part

    if release.offsets_first:
        put([_offsets(symbols, release.offsets, base, at), *relative_base, *front, *sequences, *tokens_and_index])
    else:
        put([*front, *tokens_and_index])
        put([_offsets(symbols, release.offsets, base, at + len(out)), *relative_base, *sequences])
    return out


def token_table(tokens: Sequence[str]) -> list[bytes]:
    """The table and its index, which is to be aligned."""
    begins, table = [], b""
    for token in tokens:
        begins.append(len(table))
        table += token.encode() + b"\0"
    return [table, struct.pack("<256H", *begins)]


def kernel(symbols: Sequence[Ksym], release: Release, *, before: bytes = b"", behind: bytes = b"") -> bytes:
    """A PVH kernel of one segment, PADDR and BASES, with what is given around the tables."""
    base = BASES[release.bits]
    code = b"\xf4" * 0x40 + before + bytes(-len(before) % 8)
    data = code + tables(symbols, release, base + len(code)) + behind
    load = ElfSegment(PT_LOAD, PADDR, data, MEMSZ, PF_R | PF_X, 0x1000, base)
    return forge(release.bits, entry_note(PADDR, release.bits // 8), (load,))


def _offsets(symbols: Sequence[Ksym], kind: str, base: int, at: int) -> bytes:
    values = {
        "relative": lambda _number, symbol: symbol.address - base,
        "percpu": lambda _number, symbol: symbol.address if symbol.type == "A" else base - 1 - symbol.address,
        "place": lambda number, symbol: symbol.address - (at + 4 * number),
        "absolute": lambda _number, symbol: symbol.address,
    }
    return b"".join((values[kind](*pair) & 0xFFFFFFFF).to_bytes(4, "little") for pair in enumerate(symbols))


def _compress(texts: Sequence[str]) -> tuple[list[str], list[bytes]]:
    """The tokens, and each text in codes: a character in use stands for itself, other codes for what is found most."""
    used = set("".join(texts))
    counts = Counter(text[at : at + size] for text in texts for size in (2, 3, 4, 7) for at in range(len(text) - size + 1))
    most = sorted(counts, key=lambda part: (-counts[part] * len(part), part))
    free = [code for code in range(256) if chr(code) not in used]
    chosen = dict(zip(most, reversed(free[3:]), strict=False))  # of the lowest some stay empty, as in a small kernel
    chosen |= {char: ord(char) for char in used}
    tokens = [""] * 256
    for text, code in chosen.items():
        tokens[code] = text
    return tokens, [_codes(text, chosen) for text in texts]


def _codes(text: str, chosen: dict[str, int]) -> bytes:
    out, at = bytearray(), 0
    while at < len(text):
        size = next(size for size in (7, 4, 3, 2, 1) if text[at : at + size] in chosen)
        out.append(chosen[text[at : at + size]])
        at += size
    return bytes(out)
