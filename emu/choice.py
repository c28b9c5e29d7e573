"""Which instructions of a trace are wanted: by mode, by label, by what they change, by what else they do."""

from collections.abc import Callable, Collection

from .effects import EFFECTS
from .trace import Record


def choose(
    modes: Collection[int] = (), symbols: Collection[str] = (), changes: Collection[str] = (), only: Collection[str] = ()
) -> Callable[[Record], bool]:
    """A function that says of an instruction whether it fits one value of each that is not empty: modes (16, 32, 64), labels in
    front of it, names of STATE_REGISTERS, words of EFFECTS."""
    kinds = frozenset(kind for word in only for kind in EFFECTS[word])

    def wanted(record: Record) -> bool:
        return (
            (not modes or record.bits in modes)
            and (not symbols or (record.place is not None and record.place.symbol in symbols))
            and (not changes or any(name in record.changes for name in changes))
            and (not kinds or any(effect.kind in kinds for effect in record.effects))
        )

    return wanted
