"""The instructions of a boot, to be looked at in a notebook or a script."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, overload

from pvhboot.loader.picture import cut
from pvhboot.shim.errors import BootError

from ..choice import choose
from ..effects import EFFECTS, LOAD, STORE
from ..engines.base import STATE_REGISTERS
from ..shown import Printer, show_text
from ..source_lines import SourceLine, SourceLines
from ..trace import Record

FIRST, LAST = 40, 20  # of a longer trace so many instructions are shown, of its begin and of its end
_MODES: Final = (16, 32, 64)


class Trace(Sequence[Record]):
    """Instructions, in their order. A slice is a Trace, too; `trace[0].number` is 1, and `print(trace[0])` gives a line as
    `pvhboot trace` does. `handoff` is the number of the kernel's first one (None: it was not reached), `sees_memory` whether
    loads and stores are told.

    A line in a terminal; `print` gives a line for each instruction, a notebook a table. Of a long one both show its begin and
    its end.
    """

    def __init__(self, records: Sequence[Record], sources: SourceLines, *, handoff: int | None, sees_memory: bool) -> None:
        self._records, self._sources = tuple(records), sources
        self.handoff, self.sees_memory = handoff, sees_memory

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, where: int) -> Record: ...
    @overload
    def __getitem__(self, where: slice) -> "Trace": ...
    def __getitem__(self, where: int | slice) -> "Record | Trace":
        return self._of(self._records[where]) if isinstance(where, slice) else self._records[where]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __eq__(self, other: object) -> bool:
        return self._records == other._records if isinstance(other, Trace) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def _of(self, records: Sequence[Record]) -> "Trace":
        return Trace(records, self._sources, handoff=self.handoff, sees_memory=self.sees_memory)

    def where(
        self,
        wanted: Callable[[Record], object] | None = None,
        *,
        only: str | Collection[str] = (),
        mode: int | Collection[int] = (),
        symbol: str | Collection[str] = (),
        changes: str | Collection[str] = (),
    ) -> "Trace":
        """Those that `wanted` is true of, and that fit as for the options of `pvhboot trace`: `only` is "io", "loads", "stores"
        or "dma", `mode` 16, 32 or 64, `symbol` a label, `changes` a register; each one or several of which one will do.
        BootError for a word that can fit none, or if `wanted` is no function."""
        if wanted is not None and not callable(wanted):
            raise BootError(f"where({wanted!r}): give a function of a record, or a keyword, as in symbol=")
        modes, symbols, registers, words = (_several(value) for value in (mode, symbol, changes, only))
        _require("mode", modes, _MODES)
        _require("changes", registers, STATE_REGISTERS)
        _require("only", words, EFFECTS)
        if not self.sees_memory and any(EFFECTS[word][0] in (LOAD, STORE) for word in words):
            raise BootError("the engine kvm does not see loads and stores: record on unicorn")
        fits = choose(modes, symbols, registers, words)
        return self._of([each for each in self if fits(each) and (wanted is None or wanted(each))])

    def source(self, record: Record) -> SourceLine | None:
        """The source line of one of them as it was written, with its comment; None where there is none."""
        return self._sources.at(record.address)

    def __repr__(self) -> str:
        if not self:
            return "<trace: no instructions>"
        return f"<trace: {len(self)} instruction{'' if len(self) == 1 else 's'}, {self[0].number} to {self[-1].number}>"

    def __str__(self) -> str:
        shown, hidden = cut(self._records, FIRST, LAST)
        return "\n".join(f"… {hidden} more" if record is None else str(record) for record in shown) or repr(self)

    def _repr_pretty_(self, printer: Printer, cycle: bool) -> None:
        show_text(self, printer, cycle)

    def _repr_html_(self) -> str:
        from ..html.trace import trace_html

        return trace_html(self)


def _several(values: Any) -> Collection[Any]:
    """What was given as one value, or as several."""
    return values if isinstance(values, Collection) and not isinstance(values, str) else (values,)


def _require(what: str, values: Collection[object], known: Collection[object]) -> None:
    for value in values:
        if value not in known:
            raise BootError(f"{what}={value!r}: there is {', '.join(map(str, known))}")
