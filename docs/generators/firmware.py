"""What the firmware says of itself: its panics and its POST codes, and which files go there."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pvhboot.shim.abi.firmware import PANICS, POSTS
from pvhboot.shim.image import panics_of
from pvhboot.shim.machines import BARE, FIRMWARES

from .markdown import code, table

_ASM: Final = Path(__file__).parents[2] / "shim" / "asm"
_STUB: Final = re.compile(r"^(\w+):\n    PANIC (\w+)", re.MULTILINE)
_IN_PLACE: Final = re.compile(r"^    PANIC (\w+)", re.MULTILINE)


def panics(_argument: str) -> str:
    """All of them: code, name, message, which firmware has it, and which file goes there."""
    files = going_there()
    rows = []
    for panic in PANICS:
        where = ", ".join(f"[{name}](../shim/asm/{name})" for name in files[panic.name])
        anchor = panic.name.lower()
        rows.append((code(f"{panic.code:#x}"), f"[{panic.name}](#{anchor})", panic.text, _firmwares(panic.name), where))
    return table(("code", "name", "what the debug console says", "firmware", "found out in"), rows)


def posts(_argument: str) -> str:
    """Progress of a verbose build."""
    return table(("code", "what begins"), ((code(f"{post.code:#x}"), post.text) for post in POSTS))


def going_there() -> dict[str, list[str]]:
    """By panic, the files in which the firmware finds out that it has to."""
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted(_ASM.glob("*.s"))}
    labels = {label: panic for text in sources.values() for label, panic in _STUB.findall(text)}
    found: dict[str, list[str]] = {panic.name: [] for panic in PANICS}
    for name, text in sources.items():
        for panic in dict.fromkeys(_panics_in(name, text, labels)):
            found[panic].append(name)
    return found


def _panics_in(name: str, text: str, labels: Mapping[str, str]) -> Iterator[str]:
    if not name.endswith("_panics.s"):
        yield from _IN_PLACE.findall(text)
        for word in re.findall(r"\bj\w+ +(\w+)", text):
            if word in labels:
                yield labels[word]


def _firmwares(panic: str) -> str:
    having = [name for name, spec in FIRMWARES.items() if any(each.name == panic for each in panics_of(spec))]
    lacking = FIRMWARES.keys() - having
    if not lacking:
        return "all"
    return f"all but {code(BARE.name)}" if lacking == {BARE.name} else ", ".join(map(code, having))


BLOCKS: Final[Mapping[str, Callable[[str], str]]] = {"panics": panics, "posts": posts}
