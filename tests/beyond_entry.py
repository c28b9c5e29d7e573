"""Boots that go on behind the handoff, on a board with interrupts under Unicorn."""

from pvhboot.emu.board import Board
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.session import boot_board, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.machines import MIB, machine
from pvhboot.shim.stock import default_blob


def boot(path, until=None, name="bare", *, seconds=60.0, memory=64, cmdline=None, modules=(), instructions=None, watchers=()):
    """The outcome, and the board's clock."""
    spec = machine(name)
    blob = default_blob(spec)
    with Kernel.open(str(path)) as kernel:
        plan = make_plan(spec, blob.data, kernel, memory=memory * MIB, cmdline=cmdline, modules=modules)
        board = Board(plan, interrupts=True)
        limits = Limits(instructions=instructions, seconds=seconds)
        outcome = boot_board(board, blob, get_engine("unicorn"), until or Until("exit"), limits, watchers)
    return outcome, board.clock
