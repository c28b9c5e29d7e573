"""Fields of plain data that came from a file: each there and of its type, or a BootError that says which is not."""

from typing import Any, TypeVar

from pvhboot.shim.errors import BootError

_T = TypeVar("_T")


def field(where: Any, name: str, kind: type[_T], what: str) -> _T:
    """A field of a JSON object; `what` is the object, for a person."""
    value = where.get(name) if isinstance(where, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BootError(f"{what} has no {name}, or one that is no {kind.__name__}")
    return value


def number(where: Any, name: str, what: str, lowest: int, highest: int) -> int:
    """A field that is a number from `lowest` to `highest`."""
    value = field(where, name, int, what)
    if not lowest <= value <= highest:
        raise BootError(f"{what} has the {name} {value}: {lowest} to {highest} is possible")
    return value
