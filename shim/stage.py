"""A custom stage: a user's assembly with a contract, inserted at a named place of the firmware."""

import os
import re
from typing import Final, NamedTuple

from .errors import AssemblyError, BootError
from .expression import number
from .files import read_file

_MAX_SOURCE: Final = 1 << 20  # bytes
SLOTS: Final = ("before-handoff",)

REGISTERS: Final = ("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp")
_CLOBBERS: Final = re.compile(r"^\s*#\s*clobbers\s*:(.*)$", re.IGNORECASE)
_MEMORY: Final = re.compile(r"memory\s+(\w+)\s*-\s*(\w+)", re.IGNORECASE)


class Clobbers(NamedTuple):
    """What a stage may change: registers, the arithmetic flags, and half-open spans of physical memory."""

    registers: frozenset[str]
    flags: bool
    memory: tuple[tuple[int, int], ...]


class Stage(NamedTuple):
    """A stage: the slot that it goes to, its file's name for messages, its text and what it declares."""

    slot: str
    name: str
    text: str
    clobbers: Clobbers


def make_stage(slot: str, name: str, text: str) -> Stage:
    """A stage from source text; BootError for an unknown slot, a name that is no text, or a missing or unreadable Clobbers
    line."""
    _require_slot(slot)
    if not name.isprintable():
        raise BootError(f"{name}: listings, manifests and debuggers name a stage's file: give it a name that can be printed")
    for line, content in enumerate(text.split("\n"), 1):
        if match := _CLOBBERS.match(content):
            try:
                return Stage(slot, name, text, _parse(match.group(1)))
            except ValueError as error:
                raise AssemblyError(f"{name}:{line}: {error}") from None
    raise AssemblyError(
        f"{name}:1: a stage says what it changes: add a line `# Clobbers: eax, flags`, or `# Clobbers: nothing`"
    )


def read_stage(slot: str, path: str) -> Stage:
    """A stage from a file; BootError as make_stage, and if it cannot be read."""
    _require_slot(slot)
    data = read_file(path, "stage", _MAX_SOURCE)
    try:
        return make_stage(slot, os.path.basename(path), data.decode().replace("\r\n", "\n"))
    except UnicodeDecodeError:
        raise BootError(f"{path}: the stage is no UTF-8 text: give the assembly source, not a binary") from None


def _require_slot(slot: str) -> None:
    if slot not in SLOTS:
        raise BootError(f"no stage named {slot!r}; there is: {', '.join(SLOTS)}")


def _parse(text: str) -> Clobbers:
    registers: set[str] = set()
    memory: list[tuple[int, int]] = []
    flags = False
    if not text.strip():
        raise ValueError("Clobbers names nothing: write `# Clobbers: nothing` if that is meant")
    for word in (part.strip().lower() for part in text.split(",")):
        if word in ("", "nothing"):
            continue
        if word == "flags":
            flags = True
        elif word in REGISTERS:
            registers.add(word)
        elif match := _MEMORY.fullmatch(word):
            start, end = number(match.group(1)), number(match.group(2))
            if start >= end:
                raise ValueError(f"the memory span {word!r} is empty: write its start and its end, which it does not contain")
            memory.append((start, end))
        else:
            raise ValueError(f"cannot read {word!r} in Clobbers: name {', '.join(REGISTERS)}, flags, or memory START-END")
    return Clobbers(frozenset(registers), flags, tuple(memory))
