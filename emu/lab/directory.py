"""The directory of an exercise: written by `lab new`, edited by a student, read by the other steps."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import AssemblyError, BootError
from pvhboot.shim.files import read_file
from pvhboot.shim.version import VERSION

from ..inputs import SOURCE_MAX
from ..outputs import Data, write_files
from .exercise import FIRMWARE, INITRD, MANIFEST, Exercise, initrd
from .exercises import find
from .readme import readme
from .stock import blob_of, broken_blob

_STATE: Final = "lab.json"
_SUFFIX: Final = ".s"


def write_new(exercise: Exercise, path: str) -> None:
    """Writes all of an exercise into a directory, which is made if it is missing; all of it or nothing. BootError if something
    is in it already, or if it cannot be written."""
    files: dict[str, bytes] = {name: text.encode() for name, text in exercise.broken.items()}
    files |= {"README.md": readme(exercise).encode(), **_firmware(broken_blob(exercise))}
    if exercise.has_initrd:
        files[INITRD] = initrd()
    files[_STATE] = _state(exercise, 0)  # last: without it a directory is none
    made = not os.path.lexists(path)
    try:
        if made:
            os.mkdir(path)
        elif os.listdir(path):
            raise BootError(f"{path}: is not empty: name a new directory")
    except OSError as error:
        raise BootError(f"{path or 'a directory without a name'}: cannot make a directory there: {error.strerror}") from None
    try:
        _write(path, files)
    except BaseException:
        if made:
            with suppress(OSError):
                os.rmdir(path)
        raise


def _write(path: str, files: Mapping[str, bytes]) -> None:
    targets: list[tuple[str, Data]] = [(os.path.join(path, name), data) for name, data in files.items()]
    write_files(targets)


def _state(exercise: Exercise, hints: int) -> bytes:
    return (json.dumps({"exercise": exercise.name, "hints": hints, "pvhboot": VERSION}, indent=1) + "\n").encode()


def _firmware(blob: Blob) -> dict[str, bytes]:
    return {FIRMWARE: blob.data, MANIFEST: blob.to_json().encode()}


class Directory:
    """One that `lab new` has written; BootError if it is none."""

    def __init__(self, path: str) -> None:
        self.path = path
        state = os.path.join(path, _STATE)
        if not os.path.isfile(state):
            raise BootError(f"{path}: no exercise is here: `pvhboot lab new` writes one")
        try:
            told: Any = json.loads(read_file(state, "state of an exercise", SOURCE_MAX))
            name, self.hints = told["exercise"], int(told["hints"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise BootError(f"{state}: not as `pvhboot lab new` wrote it: begin anew in another directory") from None
        try:
            self.exercise = find(str(name))
        except BootError as error:
            raise BootError(f"{state}: {error}") from None

    @property
    def initrd(self) -> str | None:
        """The path of the initrd, if the exercise has one."""
        return os.path.join(self.path, INITRD) if self.exercise.has_initrd else None

    def sources(self) -> dict[str, str]:
        """The source files as they are now; BootError if one is missing, or is none of the firmware's."""
        names = self.exercise.broken
        try:
            there = os.listdir(self.path)
        except OSError as error:
            raise BootError(f"{self.path}: cannot read the directory: {error.strerror}") from None
        more = sorted(name for name in there if name.endswith(_SUFFIX) and name not in names)
        if more:
            raise BootError(f"{os.path.join(self.path, more[0])}: no file of this firmware: call it otherwise, or take it away")
        return {name: self._text(name) for name in names}

    def _text(self, name: str) -> str:
        """Without what an editor on Windows puts into it: a mark in front, and CRs."""
        path = os.path.join(self.path, name)
        try:
            return read_file(path, "source file", SOURCE_MAX).decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            raise BootError(f"{path}: is not UTF-8") from None

    def build(self) -> Blob:
        """Assembles the source files and keeps the ROM and its manifest beside them. BootError if they do not assemble."""
        sources = self.sources()
        try:
            blob = blob_of(self.exercise, sources)
        except AssemblyError as error:
            raise AssemblyError(os.path.join(self.path, str(error))) from None
        except BootError as error:
            raise BootError(f"{self.path}: {error}") from None
        _write(self.path, _firmware(blob))
        return blob

    def keep_hints(self, count: int) -> None:
        """Remembers how many hints were taken."""
        self.hints = count
        _write(self.path, {_STATE: _state(self.exercise, count)})

    def keep_sources(self, sources: Mapping[str, str]) -> None:
        """Writes those files that have changed."""
        before = self.sources()
        _write(self.path, {name: text.encode() for name, text in sources.items() if text != before[name]})
