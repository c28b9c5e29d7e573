"""How the page's data keep what is large: numbers that JavaScript can hold, and tables of what comes again."""

from collections.abc import Hashable
from typing import Any, Final, Generic, TypeVar

_EXACT: Final = 1 << 53  # from here on not every integer is a JavaScript number: ECMAScript, Number.MAX_SAFE_INTEGER

KeyT = TypeVar("KeyT", bound=Hashable)


def plain(value: int) -> int | str:
    """A number as JSON can carry it to a page: from 2^53 on as "0x…"."""
    return value if -_EXACT < value < _EXACT else hex(value)


class Table(Generic[KeyT]):
    """Distinct things by their numbers, in the order in which they first came."""

    def __init__(self) -> None:
        self._numbers: dict[KeyT, int] = {}

    def number(self, key: KeyT) -> int:
        """That of a thing, new or known."""
        return self._numbers.setdefault(key, len(self._numbers))

    def entries(self) -> list[KeyT]:
        """All of them."""
        return list(self._numbers)


Json = dict[str, Any]
