"""What gdb's command `monitor` can ask of a boot: the check, accesses to devices, where the CPU is, its state."""

from collections.abc import Callable, Mapping
from typing import Final

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.errors import BootError

from ..bus import LOADS, Access
from ..check import check
from ..disassembly import decode
from ..engines.base import code_at
from ..report.state import state_text
from ..report.text import finding_lines
from .debuggee import Debuggee

_ACCESSES: Final = 16  # that `io` shows unless it is told a number


def answer(debuggee: Debuggee, plan: BootPlan, line: str) -> list[str]:
    """The lines that a command gives; BootError for one that there is not, or that cannot be read."""
    name, _, argument = line.strip().partition(" ")
    if name not in COMMANDS:
        raise BootError(f"no monitor command {name!r}: there is {', '.join(COMMANDS)}")
    _, takes, function = COMMANDS[name]
    if argument and not takes:
        raise BootError(f"monitor {name} takes no argument")
    return function(debuggee, plan, argument.strip())


def _check(debuggee: Debuggee, plan: BootPlan, _argument: str) -> list[str]:
    cpu = debuggee.cpu
    here = [] if cpu.linear_ip() == plan.entry else [f"not at the entry {plan.entry:#x}: as if this were the handoff"]
    return here + finding_lines(check(cpu.handoff(), plan), verbose=False)


def _io(debuggee: Debuggee, _plan: BootPlan, argument: str) -> list[str]:
    if argument and not (argument.isdecimal() and int(argument)):
        raise BootError(f"monitor io {argument}: give a number of accesses above 0")
    log, count = debuggee.board.bus.log, int(argument or _ACCESSES)
    if not log:
        return ["no access to a device yet"]
    first = max(len(log) - count, 0)
    return [f"{number:>6}  {_access(access)}" for number, access in enumerate(log[first:], first + 1)]


def _access(access: Access) -> str:
    sign = "=" if access.kind in LOADS else "<-"
    return f"{access.kind:<5} {access.address:#x} {sign} {access.value:#0{2 + 2 * access.size}x}  {access.device or 'nobody'}"


def _where(debuggee: Debuggee, _plan: BootPlan, _argument: str) -> list[str]:
    address = debuggee.cpu.linear_ip()
    place = debuggee.places.locate(address)
    lines = [f"{address:#x}" + (f"  {place}" if place else "")]
    code = code_at(debuggee.cpu, debuggee.board.memory, address)
    if not code:
        return [*lines, "no memory there"]
    found = decode(code, address, debuggee.cpu.bits)
    return [*lines, f"{found.data.hex(' ')}  {found.text}  ({debuggee.cpu.bits}-bit)"]


def _info(debuggee: Debuggee, _plan: BootPlan, _argument: str) -> list[str]:
    cpu = debuggee.cpu
    return state_text(cpu.registers(), cpu.segments(), debuggee.board.memory)


def _help(_debuggee: Debuggee, _plan: BootPlan, _argument: str) -> list[str]:
    return [f"monitor {name + (' ' + takes if takes else ''):<8} {does}" for name, (does, takes, _) in COMMANDS.items()]


# By name: what it does, its argument ("": none), the function.
COMMANDS: Final[Mapping[str, tuple[str, str, Callable[[Debuggee, BootPlan, str], list[str]]]]] = {
    "check": ("the clauses of the PVH ABI that are not met, as if the kernel were entered now", "", _check),
    "io": (f"the last N accesses to devices (default: {_ACCESSES})", "[N]", _io),
    "where": ("label, source line and instruction", "", _where),
    "info": ("registers with their bits by name, segments with their hidden parts, the GDT", "", _info),
    "help": ("this", "", _help),
}
