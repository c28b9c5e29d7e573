"""What `lab new` says in the README.md of its directory."""

from textwrap import wrap
from typing import Final

from pvhboot.shim.abi.firmware import FW_CFG

from .exercise import FIRMWARE, INITRD, MANIFEST, Exercise
from .exercises import EXERCISES, number_of

_WIDTH: Final = 110


def readme(exercise: Exercise) -> str:
    """The README.md of an exercise, Markdown."""
    options = " ".join(exercise.options)
    spec = exercise.machine
    told = "asks QEMU's fw_cfg what to boot" if spec.source == FW_CFG else "finds in its parameter block what to boot"
    should = (
        f"This is pvhboot's firmware for the machine `{spec.name}`, with one mistake in one of its files. It begins at the "
        f"reset vector (`reset.s`), goes to protected mode (`realmode.s`, `flat32.s`), {told}, makes a `start_info` for the "
        "kernel, and jumps to the kernel's PVH entry with its address in `%ebx` (`handoff.s`). Each file begins with what it "
        "gets (In), leaves (Out) and changes (Clobbers). The kernel that it boots here is pvhboot's conformance guest, which "
        "is built in."
    )
    files = f"`{FIRMWARE}` and `{MANIFEST}` are the ROM and its labels and lines, as assembled last"
    files += f"; `{INITRD}` is the initrd." if exercise.has_initrd else "."
    parts = [
        f"# Exercise {number_of(exercise)} of {len(EXERCISES)}: {exercise.name}",
        "## What it should do",
        _paragraph(should),
        "## What one sees",
        _paragraph(exercise.lesson.seen),
        "## What to do",
        _paragraph("In this directory: find the mistake, mend the file, and check. Only the `.s` files are to be edited."),
        _commands("pvhboot lab check ."),
        _paragraph(
            "It assembles what is here, boots it, and says the first thing that is wrong. More tools, of the same boot:"
        ),
        _commands(*(f"pvhboot {word} {options}{more}" for word, more in _TOOLS)),
        _paragraph(files),
        _paragraph("If you are stuck, a hint, and then more of them; and in the end the solution, and why:"),
        _commands("pvhboot lab hint .", "pvhboot lab solve ."),
    ]
    return "\n\n".join(parts) + "\n"


_TOOLS: Final = (
    ("boot", " --verbose"),
    ("trace", " --until handoff -o trace.jsonl"),
    ("explain", ""),
    ("report", " -o boot.html"),
)


def _paragraph(text: str) -> str:
    return "\n".join(wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False))


def _commands(*lines: str) -> str:
    return "\n".join(["```sh", *lines, "```"])
