"""What each loader, and each kind of guest, would make of a file, and why. The models stand in verdicts/, one a project."""

from typing import NamedTuple

from .facts import Facts
from .image import Image
from .verdicts.base import Verdict
from .verdicts.guests import judge_guests
from .verdicts.linux_loader import judge_linux_loader
from .verdicts.own import judge_own
from .verdicts.qemu import judge_qemu
from .verdicts.raw import RawFile
from .verdicts.xen import judge_xen
from .wrapping import Wrapping


class Judged(NamedTuple):
    """What is judged: the file, how the ELF image in it is wrapped, as far as that is known, that image, None if there is none,
    and what examination.examine has proven of it, or why it could not (`reason`)."""

    file: Image
    wrapping: Wrapping
    image: Image | None
    facts: Facts | None
    reason: str


def judge(judged: Judged) -> tuple[Verdict, ...]:
    """The verdicts: QEMU, the three that use linux-loader, Xen, pvhboot, then Linux and FreeBSD as guests.

    No file makes it raise anything, or read more of it than its headers and 65536 notes.
    """
    outer = RawFile(judged.file)
    inner = outer if judged.image is judged.file else None if judged.image is None else RawFile(judged.image)
    return (
        judge_qemu(outer),
        *judge_linux_loader(outer, inner, judged.wrapping.codec),
        judge_xen(outer, judged.wrapping, inner, judged.reason),
        judge_own(judged.facts, judged.reason),
        *judge_guests(judged.facts, judged.reason),
    )
