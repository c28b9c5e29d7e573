"""`pvhboot coverage`: what of a firmware was executed, of the runs that files of --coverage tell of."""

import argparse
import json
import os
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from pvhboot.shim.errors import BootError

from ..complaint import complain
from ..coverage import Coverage, describe_own, read_coverage
from ..covered import CoveredFile, covered_files, total
from ..lcov import tracefile
from ..report.coverage import coverage_text, coverage_to_json
from .common import Data, write_files


def run(arguments: argparse.Namespace) -> int:
    """0; 1 if less is covered than --fail-under asks for."""
    wanted = arguments.fail_under
    if wanted is not None and not 0 <= wanted <= 100:
        raise BootError(f"--fail-under {wanted:g}: give per cent, 0 to 100")
    if arguments.source_root and arguments.lcov is None:
        raise BootError("--source-root is for --lcov: the table names files only")
    if arguments.source_root and arguments.lcov is None:
        raise BootError("--source-root is for --lcov: give the tracefile's name")
    for root in arguments.source_root:
        if not os.path.isdir(root):
            raise BootError(f"--source-root {root}: there is no such directory")
    coverage = read_coverage(arguments.file)
    describe_own(coverage)
    files = covered_files(coverage)
    write_files(_outputs(arguments, coverage, files), arguments.file)
    if arguments.json:
        print(json.dumps(coverage_to_json(files), indent=2))
    else:
        print(coverage_text(files, arguments.missing))
    covered = total(files).per_cent
    if wanted is None or covered >= wanted:
        return 0
    complain(f"{too_little(covered, wanted)} (--fail-under)")
    return 1


def too_little(covered: float, wanted: float) -> str:
    """That less is covered than was asked for, in per cent, in words."""
    return f"{covered:.2f} % of the firmware is covered, less than {wanted:g} %"


def _outputs(arguments: argparse.Namespace, coverage: Coverage, files: Sequence[CoveredFile]) -> list[tuple[str, Data]]:
    outputs: list[tuple[str, Data]] = []
    if arguments.output is not None:
        outputs.append((arguments.output, coverage.to_json().encode()))
    if arguments.lcov is not None:
        outputs += lcov_files(arguments.lcov, files, arguments.source_root)
    return outputs


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
