"""A transcript replayed: a bus on which it answers, in place of devices.

Strict: each access has to be the next one of the transcript, with the same value if it is a store, and with the same bytes in
memory wherever a device fetched some for it (fw_cfg's DMA descriptor). Tolerant: each address has its own answers, in order;
where the register of an index decides what a data register shows, each selection has; the last answer is given again when
there is no other; what has none is remembered.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from pvhboot.loader.image import SizedSource
from pvhboot.loader.memory import GuestMemory, ReadableMemory
from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi import fw_cfg, pci
from pvhboot.shim.abi.devices import CMOS_PORT
from pvhboot.shim.errors import BootError, NoMemoryError

from .bus import IN, OUT, PORT_KINDS, READ, STORES, WRITE, Access, Bus
from .transcript import Exchange, ModulePiece, Piece, Transcript, require_same

STRICT: Final = "strict"
TOLERANT: Final = "tolerant"
ORDERS: Final = (STRICT, TOLERANT)

# The port that selects what a data port shows.
_INDEX_OF: Final = {
    fw_cfg.FW_CFG_DATA_PORT: fw_cfg.FW_CFG_PORT,
    CMOS_PORT + 1: CMOS_PORT,
    **{pci.PCI_CONFIG_DATA + at: pci.PCI_CONFIG_ADDRESS for at in range(4)},
}
_INDEXES: Final = frozenset(_INDEX_OF.values())


class Divergence(Exception):
    """The transcript does not have this access here; the message says what it has."""


class Order(Protocol):
    """By which order a transcript answers. `used` are the numbers of the exchanges that were made, from 0."""

    used: set[int]

    def find(self, access: Access, memory: ReadableMemory) -> Exchange | None:
        """What answers an access, which has the value 0 if it is a load; None if nothing does. Raises Divergence if the run
        must not go on."""


class _Strict:
    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self.used: set[int] = set()
        self._exchanges = exchanges

    def find(self, access: Access, memory: ReadableMemory) -> Exchange | None:
        at = len(self.used)
        does = f"access {at + 1}: the firmware {_phrase(access)}"
        if at == len(self._exchanges):
            raise Divergence(f"{does}, the transcript has ended")
        exchange, count = self._whole(at, access.size)
        found = exchange.access
        if found[:3] != access[:3]:
            raise Divergence(f"{does}, the transcript has one that {_phrase(found)}{_by(found)}")
        if access.kind in STORES and found.value != access.value:
            raise Divergence(f"{does}, the transcript has {found.value:#x}")
        if (difference := _fetched_difference(exchange, memory)) is not None:
            raise Divergence(f"{does}, for which {difference}")
        self.used.update(range(at, at + count))
        return exchange

    def _whole(self, at: int, size: int) -> tuple[Exchange, int]:
        """The exchange, with those behind it that are further parts of an access of `size` bytes, as QEMU splits it; how many
        there are."""
        exchange = self._exchanges[at]
        for number, part in enumerate(self._exchanges[at + 1 : at + size], 1):
            have, access = exchange.access, part.access
            if have.size + access.size > size or (access.kind, access.address) != (have.kind, have.address + have.size):
                return self._exchanges[at], 1
            joined = have._replace(size=have.size + access.size, value=have.value | access.value << 8 * have.size)
            exchange = Exchange(
                joined, (), (*exchange.stored, *part.stored), exchange.shadow if part.shadow is None else part.shadow
            )
            if joined.size == size:
                return exchange, number + 1
        return self._exchanges[at], 1


class _Stores:
    """The exchanges that store one value to one place, by their numbers: those that are left, and those that were made."""

    def __init__(self) -> None:
        self.left: deque[int] = deque()
        self._made: list[int] = []

    def take(self, fits: Callable[[int], bool]) -> int | None:
        """The first one left that fits; or else the last one that was made."""
        for at, number in enumerate(self.left):
            if fits(number):
                del self.left[at]
                self._made.append(number)
                return number
        return next(filter(fits, reversed(self._made)), None)


class _Answers:
    """Numbers of exchanges: of loads by kind, address and size, of stores by the value, too."""

    def __init__(self) -> None:
        self.loads: dict[tuple[str, int, int], list[int]] = {}
        self.stores: dict[tuple[str, int, int, int], _Stores] = {}

    def add(self, access: Access, number: int) -> None:
        """In the transcript's order."""
        if access.kind in STORES:
            self.stores.setdefault(access[:4], _Stores()).left.append(number)
        else:
            self.loads.setdefault(access[:3], []).append(number)


class _Tolerant:
    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self.used: set[int] = set()
        self._exchanges = exchanges
        self._plain = _Answers()
        self._selections: dict[tuple[int, int | None], list[_Answers]] = {}  # by index port and value
        selected: dict[int, int | None] = {}
        for number, exchange in enumerate(exchanges):
            access = exchange.access
            if _selects(access):
                selected[access.address] = access.value
                self._selections.setdefault((access.address, access.value), []).append(_Answers())
            answers, index = self._plain, _index_of(access)
            if index is not None:
                answers = self._selections.setdefault((index, selected.get(index)), [_Answers()])[-1]
            answers.add(access, number)
        # What is selected now: the answers, and how many of each load were given.
        self._open: dict[int, tuple[_Answers, dict[tuple[str, int, int], int]]] = {
            index: (self._selections.get((index, None), [_Answers()])[0], {}) for index in _INDEXES
        }
        self._given: dict[tuple[str, int, int], int] = {}
        self._times: dict[tuple[int, int | None], int] = {}

    def find(self, access: Access, memory: ReadableMemory) -> Exchange | None:
        if _selects(access):
            self._select(access.address, access.value)
        index = _index_of(access)
        answers, given = (self._plain, self._given) if index is None else self._open[index]
        chosen: int | None = None
        if access.kind in STORES:
            if (stores := answers.stores.get(access[:4])) is not None:
                chosen = stores.take(lambda number: _fetched_difference(self._exchanges[number], memory) is None)
        elif numbers := answers.loads.get(access[:3]):
            at = given.get(access[:3], 0)
            given[access[:3]] = at + 1
            chosen = numbers[min(at, len(numbers) - 1)]
        if chosen is None:
            return None
        self.used.add(chosen)
        return self._exchanges[chosen]

    def _select(self, index: int, value: int) -> None:
        """The answers of the transcript's selection with the same number, or of the last one."""
        key = index, value
        selections = self._selections.get(key, [_Answers()])
        times = self._times.get(key, 0)
        self._open[index] = selections[min(times, len(selections) - 1)], {}
        self._times[key] = times + 1


class ReplayReport(NamedTuple):
    """What came of a replay: by which order, how many of the transcript's accesses were made, and those that were not; what
    had no answer (tolerant); whether the run was ended, as what it did is not in the transcript."""

    order: str
    made: int
    left: tuple[Exchange, ...]
    unanswered: tuple[Access, ...]
    diverged: bool

    @property
    def ok(self) -> bool:
        """All was made as the transcript has it; tolerant: no load was without an answer."""
        if self.diverged:
            return False
        if self.order == STRICT:
            return not self.left
        return all(access.kind in STORES for access in self.unanswered)

    def lines(self) -> list[str]:
        """For a person."""
        count = self.made + len(self.left)
        lines = [f"replay ({self.order}): {self.made} of the transcript's {count} accesses were made"]
        if self.left and self.order == STRICT and not self.diverged:
            lines.append(f"  not made: access {self.made + 1}, which {_phrase(self.left[0].access)}")
        lines += [f"  without an answer: the firmware {_phrase(access)}" for access in self.unanswered[:_SHOWN]]
        if len(self.unanswered) > _SHOWN:
            lines.append(f"  and {len(self.unanswered) - _SHOWN} more")
        return lines

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "order": self.order,
            "made": self.made,
            "left": len(self.left),
            "diverged": self.diverged,
            "unanswered": [access._asdict() for access in self.unanswered],
        }


_SHOWN: Final = 8  # accesses without an answer


class Replay:
    """A transcript on its way: for one run. `with_devices`: the machine's own devices are told all, too, and do to memory what
    they do; what loads give is the transcript's nevertheless."""

    def __init__(self, transcript: Transcript, order: str = STRICT, *, with_devices: bool = False) -> None:
        """Raises BootError for an order that does not exist."""
        if order not in ORDERS:
            raise BootError(f"no order named {order!r}; there is: {', '.join(ORDERS)}")
        self.transcript, self.order, self.with_devices = transcript, order, with_devices
        orders: Mapping[str, Callable[[Sequence[Exchange]], Order]] = {STRICT: _Strict, TOLERANT: _Tolerant}
        self.answers = orders[order](transcript.exchanges)
        self.unanswered: list[Access] = []
        self.diverged = False

    def require_plan(self, plan: BootPlan) -> None:
        """BootError unless the plan boots what the transcript was recorded with."""
        require_same(self.transcript.subject, plan)

    def report(self) -> ReplayReport:
        """What has come of it so far."""
        used = self.answers.used
        left = tuple(each for number, each in enumerate(self.transcript.exchanges) if number not in used)
        return ReplayReport(self.order, len(used), left, tuple(self.unanswered), self.diverged)


class ReplayBus(Bus):
    """A bus on which a replay answers. What is claimed on it is told what the guest does, so that one sees what it prints; a
    store to a ROM is for nobody, and in no transcript. `on_divergence` is called with the words for it."""

    def __init__(
        self,
        replay: Replay,
        unclaimed: str,
        memory: GuestMemory,
        modules: Iterable[SizedSource],
        on_divergence: Callable[[str], None],
    ) -> None:
        super().__init__(unclaimed)
        self._replay, self._ram, self._modules = replay, memory, tuple(modules)
        self._on_divergence = on_divergence

    def port_read(self, port: int, size: int) -> int:
        """See Bus."""
        if (exchange := self._exchange(Access(IN, port, size, 0, ""))) is None:
            return (1 << 8 * size) - 1
        self._port_read(port, size)
        return self._settle(exchange)

    def port_write(self, port: int, size: int, value: int) -> None:
        """See Bus."""
        if (exchange := self._exchange(Access(OUT, port, size, value, ""))) is not None:
            self._port_write(port, size, value)
            self._settle(exchange)

    def memory_read(self, paddr: int, size: int) -> int:
        """See Bus."""
        if (exchange := self._exchange(Access(READ, paddr, size, 0, ""))) is None:
            return (1 << 8 * size) - 1
        if (claim := self._claim(paddr)) is not None:
            claim.device.read(paddr - claim.start, size)
        return self._settle(exchange)

    def memory_write(self, paddr: int, size: int, value: int) -> None:
        """See Bus."""
        if self._ram.is_rom(paddr):
            super().memory_write(paddr, size, value)
        elif (exchange := self._exchange(Access(WRITE, paddr, size, value, ""))) is not None:
            if (claim := self._claim(paddr)) is not None:
                claim.device.write(paddr - claim.start, size, value)
            self._settle(exchange)

    def _exchange(self, access: Access) -> Exchange | None:
        """What the transcript has for an access; None if the run must not go on."""
        try:
            exchange = self._replay.answers.find(access, self._ram)
        except Divergence as divergence:
            self._end(str(divergence))
            return None
        if exchange is None:
            self._replay.unanswered.append(access)
            return Exchange(access if access.kind in STORES else access._replace(value=(1 << 8 * access.size) - 1))
        return exchange

    def _settle(self, exchange: Exchange) -> int:
        """Does to memory what the devices did; the access's value."""
        try:
            if not self._replay.with_devices:  # which do it themselves
                for paddr, recorded in exchange.fetched:
                    self._ram.fetch(paddr, len(recorded))
            for piece in exchange.stored:
                self._store(piece)
            if exchange.shadow is not None:
                self._ram.show_shadow(exchange.shadow)
        except BootError as error:
            self._end(f"the firmware {_phrase(exchange.access)}, for which the transcript has what cannot be stored: {error}")
        return self._record(exchange.access)

    def _end(self, why: str) -> None:
        self._replay.diverged = True
        self._on_divergence(why)

    def _store(self, piece: Piece | ModulePiece) -> None:
        if isinstance(piece, ModulePiece):
            source = self._modules[piece.module]
            with self._ram.writing(piece.paddr, source.size) as view:
                source.read_into(0, view)
        else:
            with self._ram.writing(piece.paddr, len(piece.data)) as view:
                view[:] = piece.data


def _selects(access: Access) -> bool:
    return access.kind == OUT and access.address in _INDEXES


def _index_of(access: Access) -> int | None:
    """The port that selects what this port shows; None if none does."""
    return _INDEX_OF.get(access.address) if access.kind in PORT_KINDS else None


def _phrase(access: Access) -> str:
    where = f"port {access.address:#x}" if access.kind in PORT_KINDS else f"{access.address:#x}"
    size = f"{access.size} byte{'' if access.size == 1 else 's'}"
    if access.kind in STORES:
        return f"writes {access.value:#x} ({size}) to {where}"
    return f"reads {size} from {where}"


def _by(access: Access) -> str:
    return f" ({access.device})" if access.device else ""


def _fetched_difference(exchange: Exchange, memory: ReadableMemory) -> str | None:
    """What is not in memory as it was when a device read it for this access; None if all is."""
    for paddr, recorded in exchange.fetched:
        try:
            data = memory.read(paddr, len(recorded))
        except NoMemoryError:
            return f"a device reads {len(recorded)} bytes at {paddr:#x}: there is no memory"
        if data != recorded:
            if exchange.access.address == fw_cfg.FW_CFG_DMA_LOW_PORT and len(recorded) == fw_cfg.FW_CFG_DMA.size:
                return f"the descriptor at {paddr:#x} says: {_descriptor(data)}; in the transcript: {_descriptor(recorded)}"
            at = next(at for at, (one, other) in enumerate(zip(data, recorded, strict=True)) if one != other)
            return f"a device reads {data[at]:#04x} at {paddr + at:#x}; in the transcript: {recorded[at]:#04x}"
    return None


def _descriptor(data: bytes) -> str:
    """fw_cfg's DMA descriptor in words."""
    control, length, address = fw_cfg.FW_CFG_DMA.unpack(data)
    item = f" of item {control >> fw_cfg.FW_CFG_DMA_CTL_KEY_SHIFT:#x}" if control & fw_cfg.FW_CFG_DMA_CTL_SELECT else ""
    does = {
        fw_cfg.FW_CFG_DMA_CTL_READ: f"{length} bytes{item} to {address:#x}",
        fw_cfg.FW_CFG_DMA_CTL_WRITE: f"{length} bytes from {address:#x}{item and ' to' + item[3:]}",
        fw_cfg.FW_CFG_DMA_CTL_SKIP: f"pass over {length} bytes{item}",
    }
    return next((words for bit, words in does.items() if control & bit), f"control {control:#x}")
