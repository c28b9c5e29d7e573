"""Board: memory, bus and devices of one machine. It serves every engine and knows none."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi import devices as ports
from pvhboot.shim.abi.firmware import DEBUGCON_PORT, POST_PORT
from pvhboot.shim.machines import rom_span

from .bus import Access, Bus
from .devices.cmos import Cmos
from .devices.debug_console import DebugConsole
from .devices.debug_exit import DebugExit
from .devices.i8042 import I8042, FastReset
from .devices.post import PostPort
from .devices.rom import RomWriteTrap
from .devices.serial import Serial16550
from .reasons import CONSOLE, EXIT, RESET, UNCLAIMED

POWER_ON_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)  # fixed, so that two runs are the same

_ROM: Final = "rom"


class StopRequest(NamedTuple):
    """A device ends the run: `reason` a word of `reasons`, with its words and the guest's value, if any."""

    reason: str
    detail: str
    value: int | None = None


class Board:
    """A machine around a CPU: what its ROM, RAM and ports hold and do.

    `plan` has been placed into `memory` already. Engines use `memory`, `bus`, `entry`, and ask `stop` after each access.
    """

    def __init__(
        self,
        plan: BootPlan,
        memory: GuestMemory,
        *,
        clock: datetime = POWER_ON_TIME,
        on_console: Callable[[bytes], None] | None = None,
    ) -> None:
        self.plan = plan
        self.memory = memory
        self.entry = plan.entry
        self.bus = Bus(plan.spec.unclaimed)
        self.console = bytearray()
        self.debug_console = bytearray()
        self.post_codes: list[int] = []
        self._request: StopRequest | None = None
        self._console_text = b""
        self._on_console = on_console
        self._rom = RomWriteTrap()
        rom = rom_span(len(plan.rom))
        self.bus.claim_memory(rom.start, rom.size, _ROM, self._rom)
        ram = sum(span.size for span in plan.ram)
        self.bus.claim_ports(ports.COM1_PORT, ports.UART_SIZE, "serial", Serial16550(self._print))
        self.bus.claim_ports(DEBUGCON_PORT, 1, "debugcon", DebugConsole(self.debug_console))
        self.bus.claim_ports(POST_PORT, 1, "post", PostPort(self.post_codes))
        self.bus.claim_ports(ports.CMOS_PORT, 2, "cmos", Cmos(ram, plan.spec.low_ram_max, clock))
        controller = I8042(self._reset)
        self.bus.claim_ports(ports.I8042_DATA_PORT, 1, "i8042", controller)
        self.bus.claim_ports(ports.I8042_COMMAND_PORT, 1, "i8042", controller.command_port)
        self.bus.claim_ports(ports.PORT_92, 1, "port92", FastReset(self._reset))
        self.bus.claim_ports(ports.DEBUG_EXIT_PORT, ports.DEBUG_EXIT_SIZE, "debug-exit", DebugExit(self._exit), width=4)

    def stop_at_console_text(self, text: str) -> None:
        """Asks for a stop as soon as COM1 has printed `text`."""
        self._console_text = text.encode("utf-8", "surrogateescape")

    @property
    def stop(self) -> StopRequest | None:
        """What a device, or the policy for unclaimed accesses, has asked for."""
        if self._request is None and (access := self.bus.unclaimed_stop) is not None:
            return StopRequest(UNCLAIMED, f"nobody answers {access.kind} of {access.size} bytes at {access.address:#x}")
        return self._request

    @property
    def rom_writes(self) -> tuple[Access, ...]:
        """The first stores to the ROM: none of them had an effect."""
        start = rom_span(len(self.plan.rom)).start
        return tuple(Access("write", start + store.offset, store.size, store.value, _ROM) for store in self._rom.stores)

    def _print(self, byte: int) -> None:
        self.console.append(byte)
        if self._on_console is not None:
            self._on_console(bytes((byte,)))
        wanted = self._console_text
        if wanted and byte == wanted[-1] and self.console.endswith(wanted):
            self._request = StopRequest(CONSOLE, f"COM1 printed {wanted.decode(errors='replace')!r}")

    def _reset(self, how: str) -> None:
        self._request = StopRequest(RESET, f"the guest asked for a reset by {how}")

    def _exit(self, value: int) -> None:
        self._request = StopRequest(EXIT, f"the guest left with {value}", value)
