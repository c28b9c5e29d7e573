"""Coverage as an lcov tracefile, which genhtml, Codecov and editors read.

Source: geninfo(1), "Files", as lcov 1.16 has it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from .covered import Covered, CoveredFile

_TEST: Final = "pvhboot"


def tracefile(files: Iterable[CoveredFile], paths: Mapping[str, str]) -> str:
    """A line is as covered as the least covered of its instructions; it has two branches for each conditional one: taken, and
    not. `paths`: where a file of that name lies."""
    return "".join(f"{line}\n" for file in files for line in _records(file, paths[file.name]))


def _records(file: CoveredFile, path: str) -> Iterator[str]:
    yield f"TN:{_TEST}"
    yield f"SF:{path}"
    for label in file.labels:
        yield f"FN:{label.line},{label.name}"
    for label in file.labels:
        yield f"FNDA:{label.runs},{label.name}"
    if file.labels:
        yield f"FNF:{len(file.labels)}"
        yield f"FNH:{sum(label.runs > 0 for label in file.labels)}"
    lines: defaultdict[int, list[Covered]] = defaultdict(list)
    for each in file.instructions:
        lines[each.line].append(each)
    branches = 0
    for number, line in sorted(lines.items()):
        for block, each in enumerate(each for each in line if each.ways is not None):
            assert each.ways is not None
            for branch, runs in enumerate(each.ways):
                yield f"BRDA:{number},{block},{branch},{runs if each.runs else '-'}"
                branches += 1
    if branches:
        yield f"BRF:{branches}"
        yield f"BRH:{file.figures.gone}"
    hits = {number: min(each.runs for each in line) for number, line in sorted(lines.items())}
    for number, runs in hits.items():
        yield f"DA:{number},{runs}"
    yield f"LF:{len(hits)}"
    yield f"LH:{sum(runs > 0 for runs in hits.values())}"
    yield "end_of_record"
