"""The solution, as changes of lines: put into a source that a student may have edited elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher, unified_diff
from typing import Final

from pvhboot.shim.errors import BootError

from .exercise import Exercise

_CONTEXT: Final = (3, 2, 1)  # lines around a change by which its place is found: as many as are as they were


class NotThereError(BootError):
    """The lines around the mistake are not as the exercise has them."""


def mended(exercise: Exercise, sources: Mapping[str, str]) -> dict[str, str]:
    """The sources with the mistake mended, and all other edits as they are. NotThereError if the place was edited, too."""
    file = exercise.mutant.file
    return {**sources, file: _applied(exercise.broken[file], exercise.mended[file], sources[file], file)}


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """A unified diff of all files, line by line."""
    for name, text in before.items():
        if after[name] != text:
            yield from unified_diff(text.splitlines(), after[name].splitlines(), f"{name}", f"{name} (mended)", lineterm="")


def _applied(broken: str, solution: str, text: str, file: str) -> str:
    """`text` with the changes that lead from `broken` to `solution`."""
    old, new, lines = (one.splitlines(keepends=True) for one in (broken, solution, text))
    for context in _CONTEXT:
        found = _with_context(old, new, lines, context)
        if found is not None:
            return "".join(found)
    raise NotThereError(f"{file} was edited where the mistake was: mend it by hand, or begin anew with `lab new`")


def _with_context(old: Sequence[str], new: Sequence[str], lines: Sequence[str], context: int) -> list[str] | None:
    """None if the lines around a change are not as they were."""
    result = list(lines)
    for group in SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(context):
        wrong = old[group[0][1] : group[-1][2]]
        right = new[group[0][3] : group[-1][4]]
        places = _places(result, wrong)
        if len(places) == 1:
            result[places[0] : places[0] + len(wrong)] = right
        elif places or not _places(result, right):
            return None
    return result


def _places(lines: Sequence[str], part: Sequence[str]) -> list[int]:
    return [at for at in range(len(lines) - len(part) + 1) if list(lines[at : at + len(part)]) == list(part)]
