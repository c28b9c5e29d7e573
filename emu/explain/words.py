"""Numbers and lists in words."""

from collections.abc import Sequence


def counted(number: int, one: str, many: str = "") -> str:
    """As in "1 file" and "2,048 files"."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def enumerated(parts: Sequence[str]) -> str:
    """As in "a, b and c"."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def range_text(start: int, size: int) -> str:
    """A range of addresses, its last byte included."""
    return f"{start:#x}" if size == 1 else f"{start:#x} to {start + size - 1:#x}"
