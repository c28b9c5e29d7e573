"""Writes down a boot's accesses to devices as a transcript: on the boards by listening, of QEMU by its trace.

QEMU's trace has no word of what its devices do to memory: where the firmware has asked fw_cfg to put what. So the trace is
replayed under Unicorn with pvhboot's own devices beside it, which hold what QEMU's fw_cfg held at the handoff, and the handoff
has to come out as QEMU's.
"""

from typing import TYPE_CHECKING, Final

from pvhboot.loader.image import BytesImage, SizedSource
from pvhboot.shim.abi import fw_cfg
from pvhboot.shim.errors import BootError

from .board import Board
from .bus import LOG_LIMIT, WRITE, Access
from .comparison import compare
from .engines.base import Cpu, Limits, Until, Watch, describe_stop
from .engines.unicorn import UnicornEngine
from .reasons import HANDOFF
from .replay import Replay
from .session import Outcome, boot_board
from .transcript import Exchange, ModulePiece, Piece, Transcript, plan_subject

if TYPE_CHECKING:
    from .engines.qemu.tracing import Trace

_PATIENCE: Final = 120.0  # seconds for the replay of a trace


class Transcriber:
    """A Watcher that keeps every access of a run on a board up to the handoff, and what its devices read and write in memory
    meanwhile."""

    def __init__(self) -> None:
        self._exchanges: list[Exchange] = []
        self._fetched: list[Piece] = []
        self._stored: list[tuple[int, int]] = []
        self._mapped = False

    def start(self, _cpu: Cpu, board: Board) -> Watch:
        """See Watcher."""
        self._board = board
        board.bus.listeners.append(self._on_access)
        board.memory.fetch_listeners.append(self._on_fetch)
        board.memory.map_listeners.append(self._on_map)
        return Watch(device_store=self._on_store, over=self._over, to_handoff=True)

    def _over(self) -> None:
        self._board.bus.listeners.remove(self._on_access)
        self._board.memory.fetch_listeners.remove(self._on_fetch)
        self._board.memory.map_listeners.remove(self._on_map)

    def _on_fetch(self, paddr: int, data: bytes) -> None:
        self._fetched.append(Piece(paddr, data))

    def _on_store(self, paddr: int, size: int) -> None:
        if self._stored and sum(self._stored[-1]) == paddr:
            start, before = self._stored.pop()
            self._stored.append((start, before + size))
        else:
            self._stored.append((paddr, size))

    def _on_map(self) -> None:
        self._mapped = True

    def _on_access(self, access: Access) -> None:
        memory = self._board.memory
        if access.kind == WRITE and memory.is_rom(access.address) and not self._mapped:
            return  # nobody's
        if len(self._exchanges) < LOG_LIMIT:
            stored = tuple(self._piece(paddr, size) for paddr, size in self._stored)
            shadow = memory.shown if self._mapped else None
            self._exchanges.append(Exchange(access, tuple(self._fetched), stored, shadow))
        self._fetched, self._stored, self._mapped = [], [], False

    def _piece(self, paddr: int, size: int) -> Piece | ModulePiece:
        data = self._board.memory.read(paddr, size)
        for number, module in enumerate(self._board.plan.modules):
            if module.payload.size == size:
                whole = bytearray(size)
                module.payload.read_into(0, memoryview(whole))
                if whole == data:
                    return ModulePiece(paddr, number)
        return Piece(paddr, data)

    def transcript(self, outcome: Outcome) -> Transcript:
        """Of the run that has ended so. BootError if it has made too many accesses."""
        if len(self._exchanges) == LOG_LIMIT:
            raise BootError(f"the firmware has made {LOG_LIMIT} accesses to devices or more: too many for a transcript")
        host_acpi, host_appends = self._board.host_acpi, self._board.host_appends
        subject = plan_subject(outcome.plan, outcome.engine, host_acpi=host_acpi, host_appends=host_appends)
        end = outcome.run.stop.reason if outcome.handoff is None else HANDOFF
        return Transcript(subject, end, tuple(self._exchanges))


def transcribe_qemu(outcome: Outcome, trace: "Trace | None") -> Transcript:
    """Of a run on QEMU, with what QEMU has traced. Raises BootError if the run has not reached the handoff, or if what QEMU's
    devices did to memory cannot be told."""
    plan, handoff = outcome.plan, outcome.handoff
    if handoff is None or trace is None:
        raise BootError(
            f"this run has no transcript, as it ended without a handoff ({describe_stop(outcome.run.stop)}): of QEMU's DMA "
            "nothing is known then; use --engine unicorn or kvm"
        )
    subject = plan_subject(plan, outcome.engine, host_acpi=handoff.host_acpi, host_appends=handoff.host_appends)
    bare = Transcript(subject, HANDOFF, tuple(map(Exchange, trace.accesses)))
    replay, transcriber = Replay(bare, with_devices=True), Transcriber()
    items: dict[int, SizedSource] = {key: BytesImage(data) for key, data in trace.items.items()}
    for module in plan.modules:  # one at most
        items[fw_cfg.FW_CFG_INITRD_DATA] = module.payload
    board = Board(plan, fw_cfg_items=items, replay=replay)
    limits = Limits(seconds=_PATIENCE)
    again = boot_board(board, outcome.blob, UnicornEngine(), Until(HANDOFF), limits, [transcriber])
    unknown = "what QEMU's DMA has put into memory cannot be told: replayed under Unicorn, this run"
    if again.handoff is None:
        raise BootError(f"{unknown} ends otherwise ({describe_stop(again.run.stop)})")
    if differences := compare([outcome, again]).differences:
        what, values = differences[0]
        raise BootError(f"{unknown} leaves another {what}: {values[again.engine]}, not {values[outcome.engine]}")
    if left := replay.report().left:
        raise BootError(f"{unknown} makes {len(left)} accesses less")
    return bare._replace(exchanges=transcriber.transcript(again).exchanges)
