"""`pvhboot lab`: exercises on broken firmwares."""

import argparse
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from textwrap import wrap
from typing import Any, Final

from pvhboot.loader.printable import one_line

from ..lab.checking import Result, check
from ..lab.directory import Directory, write_new
from ..lab.exercise import Exercise
from ..lab.exercises import EXERCISES, find, number_of
from ..lab.mending import NotThereError, difference, mended

_WIDTH: Final = 110


def run(arguments: argparse.Namespace) -> int:
    """0; of `check` 1 if something is wrong."""
    return _STEPS[arguments.step](arguments)


def _list(arguments: argparse.Namespace) -> int:
    rows = [_row(exercise) for exercise in EXERCISES]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return 0
    columns = ("number", "name", "machine", "difficulty")
    widths = {name: max(len(str(row[name])) for row in rows) for name in columns}
    for row in rows:
        print(f"{row['number']:>2}", *(f"{row[name]:<{widths[name]}}" for name in columns[1:]), row["symptom"], sep="  ")
    return 0


def _row(exercise: Exercise) -> Mapping[str, Any]:
    return {
        "number": number_of(exercise),
        "name": exercise.name,
        "machine": exercise.machine.name,
        "difficulty": exercise.difficulty,
        "symptom": exercise.lesson.symptom,
    }


def _new(arguments: argparse.Namespace) -> int:
    exercise, path = find(arguments.exercise), arguments.directory
    write_new(exercise, path)
    _say([f"{path}: exercise {_title(exercise)}", exercise.lesson.seen])
    _say([f"read {os.path.normpath(os.path.join(path, 'README.md'))}, mend a .s file there, then: pvhboot lab check {path}"])
    return 0


def _check(arguments: argparse.Namespace) -> int:
    result = check(Directory(arguments.directory), arguments.engine)
    if arguments.json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        _say(_result_lines(result))
    return 0 if result.fact is None else 1


def _result_lines(result: Result) -> Iterator[str]:
    yield f"exercise {_title(result.directory.exercise)}, booted on {result.outcome.engine}"
    if result.fact is None:
        yield f"passed: the kernel is entered, and all {result.clauses_met} clauses of the PVH ABI are met"
        yield f"learnt: {result.directory.exercise.lesson.learnt}"
        return
    yield f"wrong: {result.fact}"
    for line in result.lines:
        yield f"  {line.file}:{line.number}: {line.text.strip()}"


def _hint(arguments: argparse.Namespace) -> int:
    directory = Directory(arguments.directory)
    hints = directory.exercise.lesson.hints
    number = min(max(directory.hints, 0), len(hints) - 1)
    directory.keep_hints(number + 1)
    _say([f"hint {number + 1} of {len(hints)}: {hints[number]}"])
    if number + 1 == len(hints):
        _say([f"that was the last one; the solution: pvhboot lab solve {directory.path}"])
    return 0


def _solve(arguments: argparse.Namespace) -> int:
    directory = Directory(arguments.directory)
    exercise, before = directory.exercise, directory.sources()
    try:
        after = mended(exercise, before)
    except NotThereError:
        if arguments.apply:
            raise
        _say([f"{exercise.mutant.file} was edited where the mistake was; this mends it as it was given:"])
        before, after = exercise.broken, exercise.mended
    changes = list(difference(before, after))
    print("\n".join(map(one_line, changes)) if changes else f"{exercise.mutant.file}: the mistake is mended already")
    print()
    _say([exercise.lesson.why, f"learnt: {exercise.lesson.learnt}"])
    if arguments.apply and changes:
        directory.keep_sources(after)
        _say([f"{exercise.mutant.file} is mended; to see it: pvhboot lab check {directory.path}"])
    return 0


def _title(exercise: Exercise) -> str:
    return f"{number_of(exercise)}, {exercise.name}, on {exercise.machine.name}"


def _say(lines: Iterable[str]) -> None:
    """Paragraphs, folded."""
    for line in lines:
        indent = line[: len(line) - len(line.lstrip())]
        folded = wrap(one_line(line), _WIDTH, subsequent_indent=indent + "  ", break_long_words=False, break_on_hyphens=False)
        print("\n".join(folded))


_STEPS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "list": _list,
    "new": _new,
    "check": _check,
    "hint": _hint,
    "solve": _solve,
}
