"""A boot on one of our own engines, with its marks: the CPU stops at each place by a hook or the processor's breakpoint."""

from collections.abc import Callable, Mapping

from pvhboot.loader.plan import BootPlan
from pvhboot.loader.recording import Recording
from pvhboot.shim.blob import Blob

from ..board import Board
from ..engines.base import Cpu, Engine, Limits, describe_stop
from ..places import Places
from ..reasons import EXIT as GUEST_EXIT
from ..reasons import INTERRUPTED
from .dry_run import LIMITS
from .goal import KernelPlaces, missing
from .lookout import device_accesses, look_out, place_text
from .marks import EXIT, FIRST_INSTRUCTION, HANDOFF, PROTECTED_MODE, VMM_START, Timeline
from .recorder import Recorder


def take_timeline(
    plan: BootPlan,
    blob: Blob,
    engine: Engine,
    goal: str,
    limits: Limits,
    kernel: KernelPlaces,
    *,
    label: str,
    recording: Recording | None = None,
    interrupts: bool = False,
) -> Timeline:
    """Boots the plan up to the mark `goal`, or to whatever ends the run before, a Ctrl-C, too. `engine` is unicorn or kvm;
    `interrupts` as of Board. A dry run of the firmware goes ahead, outside of the time: it tells the place of the protected
    mode and the instructions, and by then what a board needs has been imported. Raises as Engine.cpu does."""
    ahead = look_out(
        plan, kernel, recording, interrupts=interrupts, limits=LIMITS._replace(seconds=min(LIMITS.seconds, limits.seconds))
    )
    recorder = Recorder(goal)
    recorder.reach(VMM_START)
    board = Board(plan, recording=recording, on_console=recorder.on_console, interrupts=interrupts)
    board.bus.listeners.append(recorder.on_access)
    with engine.cpu(board, limits) as cpu:
        counts, end = _run(cpu, board, recorder, ahead.addresses, kernel, counting=limits.instructions is not None)
    located = Places(plan, blob)
    if (stop := cpu.stop) is not None and stop.reason != GUEST_EXIT and stop.rip is not None:
        end += f", at {place_text(located, stop.rip)}"

    def describe(name: str) -> str:
        return place_text(located, ahead.addresses[name]) if name in ahead.addresses else ""

    return Timeline(
        label,
        engine.name,
        recorder.marks(describe),
        {**ahead.counts, **counts},
        end,
        missing(goal, recorder.has, ahead.absent),
        recorder.start_ns,
    )


def _run(
    cpu: Cpu, board: Board, recorder: Recorder, addresses: Mapping[str, int], kernel: KernelPlaces, *, counting: bool
) -> tuple[dict[str, int], str]:
    """The counts up to the handoff, and how the run has ended."""
    counts: dict[str, int] = {}
    firmware = {addresses[name]: name for name in (PROTECTED_MODE, HANDOFF) if name in addresses}
    recorder.on_goal = cpu.pause
    recorder.reach(FIRST_INSTRUCTION)
    try:
        _advance(cpu, recorder, firmware, lambda: recorder.has(HANDOFF), counting=counting)
        if recorder.has(HANDOFF):
            counts = _counts(cpu, board)
            places = {address: name for name, address in kernel.addresses.items() if address not in firmware}
            _advance(cpu, recorder, places, lambda: False, counting=counting)
    except KeyboardInterrupt:
        return counts, INTERRUPTED
    if cpu.stop is None:
        return counts, f"{recorder.goal} was reached"
    if cpu.stop.reason == GUEST_EXIT:
        recorder.reach(EXIT, place=cpu.stop.detail)
    return counts, describe_stop(cpu.stop)


def _advance(cpu: Cpu, recorder: Recorder, places: Mapping[int, str], arrived: Callable[[], bool], *, counting: bool) -> None:
    """Executes to each of the places once, by linear address, until it has arrived, at the goal, or at the end of the run."""
    left = dict(places)
    while cpu.stop is None and not recorder.done and not arrived():
        if cpu.run_to(tuple(left), counting=counting):
            now = recorder.clock()
            recorder.reach(left.pop(cpu.linear_ip()), now)


def _counts(cpu: Cpu, board: Board) -> dict[str, int]:
    """What the host has done up to here: accesses to devices, exits, and bytes that it has loaded."""
    counts = cpu.counts()
    exits = {name: value for name, value in counts.items() if name.startswith("kvm_")}
    memory = board.memory
    return {"device_accesses": device_accesses(counts), **exits, "bytes_copied": memory.copied, "bytes_mapped": memory.mapped}
