"""Accesses to devices for a notebook."""

from collections.abc import Sequence
from typing import Final

from pvhboot.loader.picture import cut

from ..bus import LOADS, Access
from .markup import Markup, code, element, fragment, row, table

_FIRST: Final = 100
_LAST: Final = 20


def accesses_html(accesses: Sequence[Access]) -> str:
    """A row for each, in their order; of a long log its first and last ones."""
    shown, hidden = cut([*enumerate(accesses)], _FIRST, _LAST)
    rows = [row("…", element("td", f"{hidden} more", colspan=5)) if each is None else _row(*each) for each in shown]
    columns = ("number", "kind", "where", "bytes", "value", "device")
    count = f"{len(accesses)} access{'' if len(accesses) == 1 else 'es'} to devices"
    return fragment("accesses to devices", table(count, columns, rows))


def _row(number: int, access: Access) -> Markup:
    arrow = "→" if access.kind in LOADS else "←"
    value = f"{arrow} {access.value:#0{2 + 2 * access.size}x}"
    return row(number, access.kind, code(f"{access.address:#06x}"), access.size, code(value), access.device or "nobody")
