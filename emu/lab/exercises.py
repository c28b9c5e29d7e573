"""The exercises, from easy to hard: rows of the table of mutants, with a lesson each."""

from typing import Final

from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE, MICROVM, MICROVM_ACPI, MachineSpec

from . import lessons_of_cpu as cpu
from . import lessons_of_memory as memory
from .astray import ASTRAY
from .exercise import EASY, HARD, MEDIUM, Exercise
from .mutant import Mutant
from .mutants import MUTANTS

_ROWS: Final = {(mutant.machine.name, mutant.name): mutant for mutant in (*MUTANTS, *(case.mutant for case in ASTRAY))}


def _row(machine: MachineSpec, name: str) -> Mutant:
    return _ROWS[machine.name, name]


EXERCISES: Final = (
    Exercise("stranger", _row(BARE, "magic-wrong"), EASY, memory.MAGIC),
    Exercise(
        "one-clause",
        _row(BARE, "tr-missing"),
        EASY,
        cpu.NO_TASK,
        comments=(
            ("# ltr sets the busy bit of the TSS descriptor: it must lie in RAM", "# out of the ROM, which nobody writes to"),
        ),
    ),
    Exercise("early-end", _row(BARE, "gdt-one-byte-short"), EASY, cpu.SHORT_LIMIT),
    Exercise("phantom", _row(MICROVM, "memmap-count-one-too-many"), EASY, memory.ONE_TOO_MANY),
    Exercise(
        "slow-motion",
        _row(BARE, "cd-nw-left-set"),
        EASY,
        cpu.CACHES,
        comments=(
            (
                " CR0 is written whole, not or-ed: reset leaves CD and NW set, and the caches stay off\n"
                "# until somebody clears them; the ABI wants every bit but PE clear.",
                "",
            ),
        ),
    ),
    Exercise("nothing-there", _row(BARE, "start-info-at-0"), MEDIUM, memory.AT_ZERO),
    Exercise("locked-door", _row(BARE, "code-not-present"), MEDIUM, cpu.NOT_PRESENT),
    Exercise("wrong-turn", _row(BARE, "far-jump-cut"), MEDIUM, cpu.CUT_JUMP),
    Exercise("two-faced", _row(BARE, "segments-not-loaded"), MEDIUM, cpu.NOT_RELOADED),
    Exercise(
        "wrong-table",
        _row(BARE, "lgdt-cut"),
        MEDIUM,
        cpu.CUT_TABLE,
        comments=((" # the 32-bit form: the base has more than 24 bits", ""),),
    ),
    Exercise("lost-pointer", _row(BARE, "ebx-clobbered"), MEDIUM, memory.EBX_LOST),
    Exercise("enormous", _row(MICROVM, "file-size-not-swapped"), MEDIUM, memory.BIG_ENDIAN),
    Exercise("trampled", _row(MICROVM, "initrd-over-the-kernel"), HARD, memory.OVER_THE_KERNEL, has_initrd=True),
    Exercise(
        "claimed-twice",
        _row(MICROVM_ACPI, "tables-in-the-ram-as-well"),
        HARD,
        memory.OVERLAP,
        comments=(
            (" Then the memory map: its RAM ends where the tables begin, and behind them may go on.", " Then the memory map."),
        ),
    ),
    Exercise("big-machine", _row(MICROVM, "initrd-above-4-gib-cut"), HARD, memory.ABOVE_4_GIB, memory="3074M", has_initrd=True),
)


def number_of(exercise: Exercise) -> int:
    """Which one it is, from 1."""
    return EXERCISES.index(exercise) + 1


def find(text: str) -> Exercise:
    """The exercise of that number or name; BootError if there is none."""
    for number, exercise in enumerate(EXERCISES, 1):
        if text in (str(number), exercise.name):
            return exercise
    raise BootError(f"no exercise {text!r}: give a number from 1 to {len(EXERCISES)}, or a name; `pvhboot lab list` has them")
