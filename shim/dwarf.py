"""DWARF for an assembled program: which source line each instruction comes from.

Version 4 in its 32-bit form, as every debugger since gdb 7.1 reads it: one compilation unit, whose line table names all files.
File names are bare, as in every message, and there is no directory: the same source gives the same bytes wherever it lies,
and the debugger is told where (gdb: `-d shim/asm`, or its command `directory`).
Source: DWARF Debugging Information Format, version 4: 6.2 (line numbers), 7.5 (.debug_info), 7.5.3 (.debug_abbrev), 7.24
(.debug_ranges), and the figures of chapter 7 for the constants.
"""

import struct
from collections.abc import Sequence
from typing import Final

from .listing import ListingLine
from .version import VERSION

_VERSION: Final = 4
_ADDRESS_SIZE: Final = 4  # bytes
_RANGES_END: Final = bytes(2 * _ADDRESS_SIZE)

_DW_TAG_COMPILE_UNIT: Final = 0x11
_DW_CHILDREN_NO: Final = 0
_DW_AT_NAME: Final = 0x03
_DW_AT_STMT_LIST: Final = 0x10
_DW_AT_LOW_PC: Final = 0x11
_DW_AT_LANGUAGE: Final = 0x13
_DW_AT_PRODUCER: Final = 0x25
_DW_AT_RANGES: Final = 0x55
_DW_FORM_ADDR: Final = 0x01
_DW_FORM_DATA2: Final = 0x05
_DW_FORM_STRING: Final = 0x08
_DW_FORM_SEC_OFFSET: Final = 0x17
_DW_LANG_MIPS_ASSEMBLER: Final = 0x8001  # what assembly of every processor goes by

_DW_LNS_COPY: Final = 1
_DW_LNS_ADVANCE_PC: Final = 2
_DW_LNS_ADVANCE_LINE: Final = 3
_DW_LNS_SET_FILE: Final = 4
_DW_LNE_END_SEQUENCE: Final = 1
_DW_LNE_SET_ADDRESS: Final = 2
_OPERANDS: Final = (0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1)  # of the standard opcodes from 1 on
_LINE_BASE: Final = -5  # of the special opcodes, which are not used
_LINE_RANGE: Final = 14


def debug_sections(listing: Sequence[ListingLine]) -> dict[str, bytes]:
    """The sections by their names; empty without an instruction. Data have no line: no CPU is ever there."""
    sequences = _sequences(listing)
    if not sequences:
        return {}
    files = list(dict.fromkeys(line.file for lines in sequences for line in lines))
    return {
        ".debug_abbrev": _abbreviations(),
        ".debug_info": _unit(files[0]),
        ".debug_line": _line_table(sequences, files),
        ".debug_ranges": b"".join(struct.pack("<II", lines[0].address, _end(lines[-1])) for lines in sequences) + _RANGES_END,
    }


def uleb128(value: int) -> bytes:
    """An unsigned number as DWARF packs it: 7 bits a byte, the lowest first (7.6)."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def sleb128(value: int) -> bytes:
    """The same with a sign."""
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value & 0x7F])


def _end(line: ListingLine) -> int:
    return line.address + len(line.data)


def _sequences(listing: Sequence[ListingLine]) -> list[list[ListingLine]]:
    """The instructions in runs without a gap, by address."""
    runs: list[list[ListingLine]] = []
    for line in sorted((line for line in listing if line.is_code), key=lambda line: line.address):
        if runs and _end(runs[-1][-1]) == line.address:
            runs[-1].append(line)
        else:
            runs.append([line])
    return runs


def _abbreviations() -> bytes:
    attributes = (
        (_DW_AT_PRODUCER, _DW_FORM_STRING),
        (_DW_AT_LANGUAGE, _DW_FORM_DATA2),
        (_DW_AT_NAME, _DW_FORM_STRING),
        (_DW_AT_LOW_PC, _DW_FORM_ADDR),
        (_DW_AT_RANGES, _DW_FORM_SEC_OFFSET),
        (_DW_AT_STMT_LIST, _DW_FORM_SEC_OFFSET),
    )
    packed = b"".join(uleb128(name) + uleb128(form) for name, form in attributes)
    end = bytes(3)  # of the list, and of the table
    return uleb128(1) + uleb128(_DW_TAG_COMPILE_UNIT) + bytes([_DW_CHILDREN_NO]) + packed + end


def _unit(name: str) -> bytes:
    """The one entry, its values in the order of the abbreviation. Ranges count from its low_pc, 0: they are addresses."""
    values = b"".join(
        (
            uleb128(1),
            _string(f"pvhboot {VERSION}"),
            struct.pack("<H", _DW_LANG_MIPS_ASSEMBLER),
            _string(name),
            struct.pack("<III", 0, 0, 0),
        )
    )
    return _with_length(struct.pack("<HIB", _VERSION, 0, _ADDRESS_SIZE) + values)


def _line_table(sequences: Sequence[Sequence[ListingLine]], files: Sequence[str]) -> bytes:
    header = struct.pack("<BBBbBB", 1, 1, 1, _LINE_BASE, _LINE_RANGE, len(_OPERANDS) + 1) + bytes(_OPERANDS)
    header += b"\0"  # no include directory
    header += b"".join(_string(name) + bytes(3) for name in files) + b"\0"  # directory, time and length are not told
    program = b"".join(_sequence(lines, files) for lines in sequences)
    return _with_length(struct.pack("<HI", _VERSION, len(header)) + header + program)


def _sequence(lines: Sequence[ListingLine], files: Sequence[str]) -> bytes:
    """A row for each instruction, and one behind the last."""
    file, number, address = 1, 1, lines[0].address
    out = bytearray(_extended(_DW_LNE_SET_ADDRESS, struct.pack("<I", address)))
    for line in lines:
        if (wanted := files.index(line.file) + 1) != file:
            out += bytes([_DW_LNS_SET_FILE]) + uleb128(wanted)
        if line.line != number:
            out += bytes([_DW_LNS_ADVANCE_LINE]) + sleb128(line.line - number)
        if line.address != address:
            out += bytes([_DW_LNS_ADVANCE_PC]) + uleb128(line.address - address)
        out.append(_DW_LNS_COPY)
        file, number, address = wanted, line.line, line.address
    out += bytes([_DW_LNS_ADVANCE_PC]) + uleb128(_end(lines[-1]) - address)
    return bytes(out + _extended(_DW_LNE_END_SEQUENCE, b""))


def _extended(opcode: int, operand: bytes) -> bytes:
    return b"\0" + uleb128(1 + len(operand)) + bytes([opcode]) + operand


def _with_length(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content


def _string(text: str) -> bytes:
    return text.encode() + b"\0"
