"""Coverage as an lcov tracefile, which genhtml, Codecov and editors read.

Source: geninfo(1), "Files", as lcov 1.16 has it.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from pvhboot.shim.errors import BootError

from .covered import Covered, CoveredFile
from .outputs import Data

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


def lcov_files(path: str, files: Iterable[CoveredFile], source_roots: Sequence[str]) -> list[tuple[str, Data]]:
    """The tracefile, and beside it the disassembly of each ROM that has no source. A source file is looked for in the
    directories, and then among the firmware's own; BootError if it is in none of them."""
    outputs: list[tuple[str, Data]] = []
    paths = {}
    for file in files:
        if file.text:
            paths[file.name] = os.path.join(os.path.dirname(path), file.name)
            outputs.append((paths[file.name], file.text.encode()))
        else:
            paths[file.name] = _source_path(file.name, source_roots)
    return [(path, os.fsencode(tracefile(files, paths))), *outputs]


def _source_path(name: str, source_roots: Sequence[str]) -> str:
    own = Path(str(resources.files("pvhboot.shim").joinpath("asm", name))).resolve()
    for path in (*(os.path.join(root, name) for root in source_roots), str(own)):
        if os.path.isfile(path):
            return path
    raise BootError(f"{name}: this source file is not there: name its directory with --source-root")
