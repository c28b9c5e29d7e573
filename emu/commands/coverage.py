"""`pvhboot coverage`: what of a firmware was executed, of the runs that files of --coverage tell of."""

import argparse
import json
import os
from collections.abc import Sequence

from pvhboot.shim.errors import BootError

from ..complaint import complain
from ..coverage import Coverage, describe_own, read_coverage
from ..covered import CoveredFile, covered_files, total
from ..lcov import lcov_files
from ..outputs import Data, write_files
from ..report.coverage import coverage_text, coverage_to_json, too_little


def run(arguments: argparse.Namespace) -> int:
    """0; 1 if less is covered than --fail-under asks for."""
    wanted = arguments.fail_under
    if wanted is not None and not 0 <= wanted <= 100:
        raise BootError(f"--fail-under {wanted:g}: give per cent, 0 to 100")
    if arguments.source_root and arguments.lcov is None:
        raise BootError("--source-root is for --lcov: the table names files only")
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


def _outputs(arguments: argparse.Namespace, coverage: Coverage, files: Sequence[CoveredFile]) -> list[tuple[str, Data]]:
    outputs: list[tuple[str, Data]] = []
    if arguments.output is not None:
        outputs.append((arguments.output, coverage.to_json().encode()))
    if arguments.lcov is not None:
        outputs += lcov_files(arguments.lcov, files, arguments.source_root)
    return outputs
