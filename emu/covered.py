"""Coverage by source line: of a ROM with a listing its instructions are the listing's, of any other those that lead on from
what was executed."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from pvhboot.shim.abi.x86 import INSTRUCTION_MAX
from pvhboot.shim.machines import rom_span

from .coverage import Coverage, RomCoverage
from .disassembly import decode
from .flow import Flow, Way, flow

_LISTING_SUFFIX: Final = ".lst"


class Ways(NamedTuple):
    """How many runs took a branch, and how many went past it."""

    taken: int
    passed: int

    @property
    def covered(self) -> int:
        """How many of the two there are."""
        return (self.taken > 0) + (self.passed > 0)


class Covered(NamedTuple):
    """An instruction of a source line (from 1): its text, how many runs executed it, and what of a conditional branch (else
    None) they did there."""

    line: int
    text: str
    runs: int
    ways: Ways | None


class Label(NamedTuple):
    """A label: the line of the instruction that it stands at, and how many runs executed that."""

    name: str
    line: int
    runs: int


class Figures(NamedTuple):
    """How many instructions there are and were executed, and the same of the two ways of each conditional branch."""

    instructions: int
    executed: int
    ways: int
    gone: int

    @property
    def per_cent(self) -> float:
        """Of both together; of nothing, 0: nobody has shown anything."""
        return 100 * (self.executed + self.gone) / (self.instructions + self.ways) if self.instructions else 0.0

    @property
    def complete(self) -> bool:
        """Everything is covered."""
        return (self.executed, self.gone) == (self.instructions, self.ways)


class CoveredFile(NamedTuple):
    """A source file. `text` is that of one that there is not: the disassembly of a ROM of foreign origin; else empty."""

    name: str
    instructions: tuple[Covered, ...]
    labels: tuple[Label, ...]
    text: str

    @property
    def figures(self) -> Figures:
        """What of it is covered."""
        branches = [each.ways for each in self.instructions if each.ways is not None]
        return Figures(
            len(self.instructions),
            sum(each.runs > 0 for each in self.instructions),
            2 * len(branches),
            sum(ways.covered for ways in branches),
        )


def total(files: Iterable[CoveredFile]) -> Figures:
    """Of all of them."""
    figures = [file.figures for file in files]
    return Figures(*(sum(column) for column in zip(*figures, strict=True))) if figures else Figures(0, 0, 0, 0)


def covered_files(coverage: Coverage) -> list[CoveredFile]:
    """By file, of one ROM after the other, in the order of their listings. What several ROMs have of the same line of the same
    file is added up."""
    roms = sorted(coverage.roms, key=lambda rom: (rom.name, rom.blob.sha256))
    listed = [rom for rom in roms if rom.blob.listing]
    names = _names([rom for rom in roms if not rom.blob.listing])
    return [*_from_listings(listed), *(_disassembled(rom, name) for rom, name in names)]


def _names(roms: list[RomCoverage]) -> Iterator[tuple[RomCoverage, str]]:
    """Each with the name of its disassembly, no two the same."""
    times = Counter(rom.name for rom in roms)
    for rom in roms:
        mark = f"-{rom.blob.sha256[:12]}" if times[rom.name] > 1 else ""
        yield rom, f"{rom.name}{mark}{_LISTING_SUFFIX}"


# An instruction by its place in the source: line, text, and which one of this text it is on that line (a macro has many).
_Key = tuple[int, str, int]


class _Sum:
    """An instruction in all ROMs that have it."""

    def __init__(self) -> None:
        self.runs = self.taken = self.passed = 0
        self.is_branch = False

    def covered(self, line: int, text: str) -> Covered:
        return Covered(line, text, self.runs, Ways(self.taken, self.passed) if self.is_branch else None)


def _from_listings(roms: Iterable[RomCoverage]) -> list[CoveredFile]:
    files: defaultdict[str, dict[_Key, _Sum]] = defaultdict(dict)
    labels: defaultdict[str, dict[tuple[int, str], int]] = defaultdict(dict)
    for rom in roms:
        names: defaultdict[int, list[str]] = defaultdict(list)
        for name, value in rom.blob.symbols.items():
            names[value].append(name)
        times: Counter[tuple[str, int, str]] = Counter()
        for line in (line for line in rom.blob.listing if line.is_code):
            number = times[line[2:]]
            times[line[2:]] += 1
            found = files[line.file].setdefault((line.line, line.text, number), _Sum())
            _add(found, rom, line.address, flow(line.data, line.address, rom.bits.get(line.address, 32)), len(line.data))
            for name in names.get(line.address, ()):
                at = (line.line, name)
                labels[line.file][at] = labels[line.file].get(at, 0) + rom.executed[line.address]
    return [
        CoveredFile(
            file,
            tuple(found.covered(line, text) for (line, text, _), found in sorted(sums.items(), key=_line)),
            tuple(Label(name, line, runs) for (line, name), runs in sorted(labels[file].items())),
            "",
        )
        for file, sums in files.items()
    ]


def _line(item: tuple[_Key, _Sum]) -> int:
    return item[0][0]


def _add(found: _Sum, rom: RomCoverage, address: int, goes: Flow, size: int) -> None:
    found.runs += rom.executed[address]
    if goes.way is Way.BRANCH:
        assert goes.target is not None
        found.is_branch = True
        found.taken += rom.edges[address, goes.target]
        found.passed += rom.edges[address, address + size]


def _disassembled(rom: RomCoverage, name: str) -> CoveredFile:
    """The instructions that were executed, and those that they lead to by what their bytes say."""
    found = _instructions(rom)
    lines = [f"; {rom.name}, sha256 {rom.blob.sha256}: what was executed, and what that leads to"]
    covered = []
    end = None
    for address in sorted(found):
        data, text, goes, bits = found[address]
        if end != address:
            lines += ["", f"; {bits} bits"]
        lines.append(f"{address:08x}  {data.hex(' '):<32}  {text}")
        each = _Sum()
        _add(each, rom, address, goes, len(data))
        covered.append(each.covered(len(lines), text))
        end = address + len(data)
    return CoveredFile(name, tuple(covered), (), "\n".join(lines) + "\n")


def _instructions(rom: RomCoverage) -> dict[int, tuple[bytes, str, Flow, int]]:
    span, data = rom_span(len(rom.blob.data)), rom.blob.data
    found = {}
    bits = dict(rom.bits)
    ahead = list(bits)
    while ahead:
        address = ahead.pop()
        offset = address - span.start
        decoded = decode(data[offset : offset + INSTRUCTION_MAX], address, bits[address])
        if decoded.detail is None:
            continue
        goes = flow(decoded.data, address, bits[address])
        found[address] = (decoded.data, decoded.text, goes, bits[address])
        for after in _successors(address, len(decoded.data), goes):
            if span.start <= after < span.end and after not in bits:
                bits[after] = bits[address]
                ahead.append(after)
    return found


def _successors(address: int, size: int, goes: Flow) -> Iterator[int]:
    if goes.way in (Way.NEXT, Way.BRANCH, Way.CALL):
        yield address + size
    if goes.target is not None:
        yield goes.target
