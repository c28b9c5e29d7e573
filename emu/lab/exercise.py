"""An exercise: a broken firmware with what a student is told of it."""

from functools import cached_property
from typing import Final, NamedTuple

from pvhboot.loader.cpio import Entry, archive
from pvhboot.loader.sizes import DEFAULT_MEMORY
from pvhboot.shim.defs import Options
from pvhboot.shim.image import asm_source, firmware_units
from pvhboot.shim.machines import MachineSpec

from .mutant import Mutant

EASY: Final = "easy"
MEDIUM: Final = "medium"
HARD: Final = "hard"

_REGULAR_FILE: Final = 0o100644
_INITRD_TEXT: Final = b"This is the initrd of an exercise: somebody has to find it where it was put.\n" * 6


class Lesson(NamedTuple):
    """What is told of a mistake: `symptom` in one line and `seen` at more length, neither of which says what it is; `hints`,
    each of which says more; `why` it is wrong, and where it has happened; what one has `learnt`, a line."""

    symptom: str
    seen: str
    hints: tuple[str, str, str]
    why: str
    learnt: str


class Exercise:
    """A row of the table of mutants with its lesson. `name` does not say what is wrong, and the `comments` that would (pieces
    of the broken file, and what stands there instead) are not in its sources. It is booted with so much `memory`, and an
    initrd if it `has_initrd`."""

    def __init__(
        self,
        name: str,
        mutant: Mutant,
        difficulty: str,
        lesson: Lesson,
        *,
        comments: tuple[tuple[str, str], ...] = (),
        memory: str = DEFAULT_MEMORY,
        has_initrd: bool = False,
    ) -> None:
        self.name, self.mutant, self.difficulty, self.lesson = name, mutant, difficulty, lesson
        self.memory, self.has_initrd = memory, has_initrd
        self._comments = comments

    @property
    def machine(self) -> MachineSpec:
        """The machine that it is for."""
        return self.mutant.machine

    @cached_property
    def broken(self) -> dict[str, str]:
        """All source files of the firmware, with the mistake in one of them."""
        (text,) = self.mutant.sources().values()
        for old, new in self._comments:
            assert text.count(old) == 1, f"{self.name}: {old!r} stands {text.count(old)} times in {self.mutant.file}"
            text = text.replace(old, new)
        return self.mended | {self.mutant.file: text}

    @cached_property
    def mended(self) -> dict[str, str]:
        """All source files of the firmware as they should be."""
        units = firmware_units(self.machine, (), {}, Options())
        return {unit.name: unit.text for unit in units if _is_file(unit.name)}

    @property
    def options(self) -> list[str]:
        """What `pvhboot boot` and its like are told to boot it, in its directory."""
        memory = [] if self.memory == DEFAULT_MEMORY else ["--memory", self.memory]
        initrd = ["--initrd", INITRD] if self.has_initrd else []
        return ["--machine", self.machine.name, *memory, *initrd, "--firmware", FIRMWARE, "--manifest", MANIFEST]


FIRMWARE: Final = "firmware.bin"
MANIFEST: Final = "firmware.json"
INITRD: Final = "initrd.cpio"


def initrd() -> bytes:
    """The initrd of those that have one."""
    return b"".join(archive([Entry(b"hello.txt", _REGULAR_FILE, _INITRD_TEXT)]))


def _is_file(name: str) -> bool:
    """Whether it is one of the firmware's own files; others are generated."""
    try:
        return bool(asm_source(name))
    except FileNotFoundError:
        return False
