"""What each loader, and each kind of guest, would make of a file, and why. The models stand in verdicts/, one a project."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from .image import Image
from .kernel import Facts
from .verdicts.base import ACCEPTS, PVH, Model, Rule, Ruling, Verdict, refuses
from .verdicts.guests import judge_guests
from .verdicts.linux_loader import judge_linux_loader
from .verdicts.qemu import judge_qemu
from .verdicts.raw import RawFile
from .verdicts.xen import judge_xen


class Judged(NamedTuple):
    """What is judged: the file, how the ELF image in it is wrapped ("", "gzip of ", "bzImage (zstd) of "), that image, None if
    there is none, and what kernel.examine has proven of it, or why it could not (`reason`)."""

    file: Image
    wrapping: str
    image: Image | None
    facts: Facts | None
    reason: str


@dataclass(frozen=True)
class _Ours:
    facts: Facts | None
    reason: str


def _decide(case: _Ours) -> Ruling:
    if case.facts is None:
        return refuses(case.reason)
    return Ruling(ACCEPTS, case.reason, PVH, case.facts.entry)


_OURS: Final = Model(
    "pvhboot",
    "pvhboot",
    (
        Rule(
            "all is checked before anything is loaded; PHYS32_ENTRY named Xen, in any PT_NOTE or else a section, packed to 4",
            "pvhboot loader/kernel.py: examine",
            _decide,
        ),
    ),
)


def judge(judged: Judged) -> tuple[Verdict, ...]:
    """The verdicts: QEMU, the three that use linux-loader, Xen, pvhboot, then Linux and FreeBSD as guests.

    No file makes it raise anything, or read more of it than its headers and 65536 notes.
    """
    outer = RawFile(judged.file)
    inner = outer if judged.image is judged.file else None if judged.image is None else RawFile(judged.image)
    codec = judged.wrapping.removesuffix(" of ").removeprefix("bzImage").strip(" ()")
    return (
        judge_qemu(outer),
        *judge_linux_loader(outer, inner, codec),
        judge_xen(outer, judged.wrapping, inner, judged.reason),
        _OURS.judge(_Ours(judged.facts, judged.reason)),
        *judge_guests(judged.facts, judged.reason),
    )
