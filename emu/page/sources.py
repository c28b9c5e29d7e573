"""The firmware's source files as the page shows them."""

from collections.abc import Mapping
from functools import cached_property

from pvhboot.shim.blob import Blob

from ..source_lines import SourceLines


class SourceFiles:
    """The files of a firmware, but for those that were made while it was built and hold data; of a ROM without a manifest none.
    `names` are theirs, by their numbers; `stages` are those of them that pvhboot's own firmware does not consist of."""

    def __init__(self, blob: Blob, lines: SourceLines) -> None:
        self._lines = lines
        self._listing = blob.listing
        self._patched = frozenset(blob.patched)
        files = dict.fromkeys(line.file for line in blob.listing)
        executed = {line.file for line in blob.listing if line.is_code}
        self.names = tuple(name for name in files if name in executed or lines.file(name))
        self.stages = frozenset(stage["file"] for stage in blob.manifest.get("stages", ()))

    def locate(self, address: int) -> tuple[int, int]:
        """The number of the file and the line (from 1) of the instruction at a physical address; -1 and 0: unknown."""
        found = self._places.get(address)
        return (-1, 0) if found is None else found

    @cached_property
    def _places(self) -> Mapping[int, tuple[int, int]]:
        numbers = {name: number for number, name in enumerate(self.names)}
        return {line.address: (numbers[line.file], line.line) for line in self._listing if line.is_code}

    def to_json(self) -> list[list[object]]:
        """Of each its name, its lines, and whether they are all: else only those that the manifest has are there."""
        return [self._file(name) for name in self.names]

    def _file(self, name: str) -> list[object]:
        known = {line.line: line for line in self._listing if line.file == name and line.is_code}
        shown = {number: self._lines.at(line.address) for number, line in known.items()}
        texts = {number: found.text for number, found in shown.items() if found is not None}
        whole = [line.rstrip() for line in self._lines.file(name)]
        for number, text in texts.items():
            if f"{name}:{number}" in self._patched and number <= len(whole):
                whole[number - 1] = text
        if whole and all(number <= len(whole) and whole[number - 1] == text for number, text in texts.items()):
            return [name, whole, True]
        count = max(texts, default=0)
        return [name, [texts.get(number, "") for number in range(1, count + 1)], False]
