"""The published strategies: what they draw is varied and small, and shrinks; they stand alone; the docs name them."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import find, given, settings
from hypothesis.strategies import SearchStrategy
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.packing import PACKED_BY
from pvhboot.loader.strategies import PvhKernel, bzimages, elves, kernels, pvh_elves, pvh_kernels
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MIB

ROOT = Path(__file__).parent.parent.parent
DOCS = (ROOT / "docs/strategies.md").read_text()
EXAMPLES = 400


def drawn(strategy: SearchStrategy[Any]) -> list[Any]:
    """Examples: always the same, but for the constants of the modules that are loaded, which hypothesis draws too."""
    out: list[Any] = []

    @settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None)
    @given(strategy)
    def collect(value: Any) -> None:
        out.append(value)

    collect()
    return out


def verdict(data: bytes) -> str:
    """ "taken", or the reason without what changes from file to file."""
    try:
        Kernel.from_bytes(data, "k")
    except BootError as error:
        return re.sub(r"0x[0-9a-f]+|\d+|b'.*'", "#", str(error)[3:])[:40]
    return "taken"


# What is drawn.


def test_valid_elf_files_are_of_all_shapes() -> None:
    seen: Counter[str] = Counter()
    every: set[str] = set()
    for made in drawn(pvh_elves()):
        assert made.data == made.image
        kernel = Kernel.from_bytes(made.data, "k")
        ends = [segment.end for segment in made.segments]
        chosen = next(segment for segment in made.segments if segment.paddr <= made.entry < segment.end)
        offsets = [segment.offset for segment in made.segments if segment.filesz]
        homes = {note.source.split()[0] for note in kernel.notes if (note.name, note.type) == (b"Xen\0", 18)}
        features = {
            made.kind: True,
            "several segments": len(ends) > 1,
            "touching": any(segment.paddr in ends for segment in made.segments),
            "above 4 GiB": ends[-1] > 1 << 32,
            "at 0": made.segments[0].paddr == 0,
            "not in order": offsets != sorted(offsets),
            "without bytes": any(not segment.filesz for segment in made.segments),
            "with zeros": any(0 < segment.filesz < segment.memsz for segment in made.segments),
            "entry first": made.entry == chosen.paddr,
            "entry last": made.entry == chosen.end - 1,
            "relocatable": made.relocation is not None,
            f"note in {'+'.join(sorted(homes))}": True,
            "two PT_NOTEs": "PT_NOTE 1" in {note.source for note in kernel.notes},
            "8 bytes": any(len(note.descriptor) == 8 for note in kernel.notes if note.type == 18),
            "other notes": len(kernel.notes) > 2,
        }
        seen.update(name for name, has in features.items() if has)
        every |= features.keys()
    assert {"ELF32", "ELF64", "note in PT_NOTE", "note in section"} <= every
    assert all(seen[name] >= EXAMPLES // 40 for name in every), seen


def test_valid_kernels_are_wrapped_in_every_way() -> None:
    kinds = {made.kind.rpartition(" of ")[0] for made in drawn(pvh_kernels())}
    assert kinds <= {"", *PACKED_BY, *(f"bzImage ({codec})" for codec in PACKED_BY)}
    assert len(kinds) > 8  # of 15


@pytest.mark.parametrize(("strategy", "kinds"), [(elves, 12), (bzimages, 20), (kernels, 25)])
def test_hostile_files_fail_in_many_ways_and_some_are_good(strategy: Callable[[], SearchStrategy[bytes]], kinds: int) -> None:
    files = drawn(strategy())
    seen = Counter(map(verdict, files))
    assert seen["taken"] > EXAMPLES // 10, seen
    assert len(seen) >= kinds, seen
    assert max(map(len, files)) < 300_000


def test_examples_shrink() -> None:
    least: PvhKernel = find(pvh_elves(), lambda _: True, settings=settings(derandomize=True, database=None))
    assert len(least.data) <= 200
    (segment,) = least.segments
    assert (segment.paddr, segment.memsz, least.entry, least.relocation) == (MIB, 1, MIB, None)


def test_a_strategy_is_shown_by_its_name() -> None:
    for strategy in (pvh_elves, pvh_kernels, elves, bzimages, kernels):
        assert repr(strategy()) == f"{strategy.__name__}()"


# They stand alone.


def test_without_hypothesis_one_line_says_so() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import pvhboot.loader.strategies"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    *_, line = done.stderr.splitlines()
    assert line == "ImportError: pvhboot.loader.strategies needs hypothesis: pip install 'pvhboot[test]' brings it"
    assert "During handling" not in done.stderr


def test_nothing_else_needs_hypothesis() -> None:
    users = {
        path.relative_to(ROOT).parent
        for room in ("shim", "loader", "emu")
        for path in (ROOT / room).rglob("*.py")
        if any(name.partition(".")[0] == "hypothesis" for name in imported(path))
    }
    assert users == {Path("loader/strategies"), Path("emu/strategies")}


def imported(path: Path) -> Iterator[str]:
    """The absolute names of what a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


# The docs.


def test_the_docs_name_every_strategy_and_field() -> None:
    for strategy in (pvh_elves, pvh_kernels, elves, bzimages, kernels):
        assert f"| `{strategy.__name__}()` |" in DOCS
    for field in PvhKernel._fields:
        assert f"| `{field}` |" in DOCS
