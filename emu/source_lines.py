"""The source line of an instruction as somebody wrote it, with its comment, where the source is at hand."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

from pvhboot.shim.blob import Blob

_LABEL: Final = re.compile(r"^[\w.$]+:\s*")  # and not the colon of cs:[...]


class SourceLine(NamedTuple):
    """A line of an assembly file: its name, its number (from 1), and its text without what is blank at its end."""

    file: str
    number: int
    text: str


class SourceLines:
    """The sources of a firmware by address. `sources` are files by name in place of pvhboot's own, of which one counts only if
    all of it is what the firmware was built from. A line is given as its file has it only if that says what was built; else as
    the manifest has it, bare; of a ROM without a manifest there is none."""

    def __init__(self, blob: Blob, sources: Mapping[str, str] | None = None) -> None:
        self._blob = blob
        self._given = dict(sources or {})
        self._read: dict[str, list[str]] = {}

    @cached_property
    def _by_address(self) -> Mapping[int, tuple[str, int, str]]:
        return {line.address: (line.file, line.line, line.text) for line in self._blob.listing if line.is_code}

    def at(self, address: int) -> SourceLine | None:
        """The line whose first (or only) instruction, or one of a macro, begins at a physical address of the ROM."""
        if (known := self._by_address.get(address)) is None:
            return None
        file, number, text = known
        return SourceLine(file, number, self._whole(file, number, text))

    def number_of(self, file: str, start: str) -> int | None:
        """Which line of a file begins so (a label with its colon, or an instruction): as the firmware was built; where that
        does not tell, as the file has it. None: there is none."""
        built = [line for line in self._blob.listing if line.file == file]
        address = self._blob.symbols.get(start.removesuffix(":")) if start.endswith(":") else None
        for line in built:
            if line.address == address or line.text.startswith(start):
                return line.line
        return next((number for number, text in enumerate(self.file(file), 1) if text.strip().startswith(start)), None)

    def file(self, name: str) -> Sequence[str]:
        """All lines of one of the files; none if it is not at hand."""
        if name not in self._read:
            self._read[name] = self._given[name].splitlines() if name in self._given else self._own(name)
        return self._read[name]

    def _own(self, name: str) -> list[str]:
        """pvhboot's file of that name, unless the firmware was built from another one."""
        from pvhboot.shim.image import asm_source

        try:
            lines = asm_source(name).splitlines()
        except FileNotFoundError:
            return []
        patched = self._blob.patched
        built = [line for line in self._blob.listing if line.file == name and line.is_code]
        fits = all(_is_built_from(lines, line.line, line.text) or f"{name}:{line.line}" in patched for line in built)
        return lines if fits else []

    def _whole(self, file: str, number: int, text: str) -> str:
        """The line as the file has it, if the instruction, or the macro that it came from, stands there."""
        lines = self.file(file)
        return lines[number - 1].rstrip() if _is_built_from(lines, number, text) else text


def _is_built_from(lines: Sequence[str], number: int, text: str) -> bool:
    """Whether the instruction, or a macro that may have been it, stands in that line."""
    if not 0 < number <= len(lines):
        return False
    code = _LABEL.sub("", lines[number - 1].split("#")[0].strip())
    return code == text or code.split(" ")[0].isupper()
