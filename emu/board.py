"""Board: memory, bus and devices of one machine. It serves every engine and knows none."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from pvhboot.loader.fw_cfg import fw_cfg_items as plan_items
from pvhboot.loader.image import SizedSource
from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.plan import BootPlan
from pvhboot.loader.recording import Recording, default_recording
from pvhboot.shim.abi import devices as ports
from pvhboot.shim.abi import fw_cfg
from pvhboot.shim.abi.acpi_loader import LOADER_FILE
from pvhboot.shim.abi.firmware import DEBUGCON_PORT, FW_CFG, POST_PORT
from pvhboot.shim.machines import ram_spans, rom_span

from .bus import WRITE, Access, Bus
from .chipset import add_chipset
from .devices.cmos import Cmos
from .devices.debug_console import DebugConsole
from .devices.debug_exit import DebugExit
from .devices.fw_cfg import DMA_NAME, FwCfg
from .devices.fw_cfg import NAME as FW_CFG_NAME
from .devices.i8042 import I8042, FastReset
from .devices.post import PostPort
from .devices.rom import RomWriteTrap
from .devices.serial import Serial16550
from .interrupts import InterruptLines
from .reasons import CONSOLE, DIVERGED, EXIT, PAUSED, RESET, UNCLAIMED

if TYPE_CHECKING:
    from .replay import Replay

POWER_ON_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)  # fixed, so that two runs are the same

_ROM: Final = "rom"


class StopRequest(NamedTuple):
    """A device ends the run: `reason` a word of `reasons`, with its words and the guest's value, if any."""

    reason: str
    detail: str
    value: int | None = None


class Board:
    """A machine around a CPU: what its ROM, RAM and ports hold and do.

    Engines use `memory`, `bus`, `entry`, and ask `stop` after each access. Memory (with the plan placed into it) and bus are
    made when they are first asked for: an engine that brings its own never does.
    """

    def __init__(
        self,
        plan: BootPlan,
        memory: GuestMemory | None = None,
        *,
        clock: datetime = POWER_ON_TIME,
        fw_cfg_items: Mapping[int, SizedSource] | None = None,
        recording: Recording | None = None,
        replay: "Replay | None" = None,
        on_console: Callable[[bytes], None] | None = None,
        interrupts: bool = False,
    ) -> None:
        """`memory`, if there is one, has the plan placed already; `fw_cfg_items` replace those of the plan and of `recording`,
        which takes the place of the machine's default. With a `replay` there are no devices but those that print or end a run:
        its transcript answers. `interrupts`: with the lines, controllers and timers that an operating system needs beyond the
        handoff. Raises BootError if the transcript is of another boot."""
        if replay is not None:
            replay.require_plan(plan)
        self.plan = plan
        self.entry = plan.entry
        self.console = bytearray()
        self.debug_console = bytearray()
        self.post_codes: list[int] = []
        self._memory = memory
        self._bus: Bus | None = None
        self._clock = clock
        self._fw_cfg_items = fw_cfg_items
        self._recording = recording
        self._replay = replay
        self._request: StopRequest | None = None
        self._console_text = b""
        self._on_console = on_console
        self._rom = RomWriteTrap()
        self.interrupts = InterruptLines() if interrupts else None

    @property
    def is_stock(self) -> bool:
        """Nobody has given it memory, items, a recording, a replay or a clock, or has looked at its memory or its bus: it is as
        the plan says."""
        changed = self._memory, self._bus, self._fw_cfg_items, self._recording, self._replay
        return self._clock == POWER_ON_TIME and all(part is None for part in changed)

    @property
    def memory(self) -> GuestMemory:
        """RAM and ROM; BootError, the first time, for what cannot be placed."""
        if self._memory is None:
            self._memory = self.plan.memory()
        return self._memory

    @property
    def recording(self) -> Recording:
        """What the machine tells its firmware; only of one that has fw_cfg."""
        if self._recording is None:
            self._recording = default_recording(self.plan.spec)
        return self._recording

    @property
    def host_acpi(self) -> bool:
        """fw_cfg is known to have ACPI tables."""
        if self._replay is not None:
            return self._replay.transcript.subject.host_acpi
        return self.plan.spec.acpi and self._fw_cfg_items is None and LOADER_FILE in self.recording.files

    @property
    def host_appends(self) -> bool:
        """What the transcript of another host's boot says: see Handoff."""
        return self._replay is not None and self._replay.transcript.subject.host_appends

    @property
    def bus(self) -> Bus:
        """Who answers at which port and address."""
        if self._bus is None:
            self._bus = self._assemble()
        return self._bus

    def _assemble(self) -> Bus:
        plan = self.plan
        replay = self._replay
        if replay is None:
            bus = Bus(plan.spec.unclaimed)
        else:
            from .replay import ReplayBus

            modules = [module.payload for module in plan.modules]
            bus = ReplayBus(replay, plan.spec.unclaimed, self.memory, modules, self._diverge)
        rom = rom_span(len(plan.rom))
        bus.claim_memory(rom.start, rom.size, _ROM, self._rom)
        bus.claim_ports(ports.COM1_PORT, ports.UART_SIZE, "serial", Serial16550(self.print_byte))
        bus.claim_ports(DEBUGCON_PORT, 1, "debugcon", DebugConsole(self.debug_console))
        bus.claim_ports(POST_PORT, 1, "post", PostPort(self.post_codes))
        if plan.spec.reset_ports:
            controller = I8042(self._reset)
            bus.claim_ports(ports.I8042_DATA_PORT, 1, "i8042", controller)
            bus.claim_ports(ports.I8042_COMMAND_PORT, 1, "i8042", controller.command_port)
            bus.claim_ports(ports.PORT_92, 1, "port92", FastReset(self._reset))
        bus.claim_ports(ports.DEBUG_EXIT_PORT, ports.DEBUG_EXIT_SIZE, "debug-exit", DebugExit(self._exit), width=4)
        if replay is None or replay.with_devices:
            self._add_sources(bus)
        return bus

    def _add_sources(self, bus: Bus) -> None:
        """Those devices of which the firmware learns something."""
        plan = self.plan
        low_ram = ram_spans(plan.spec, plan.ram_size)[0].size
        bus.claim_ports(ports.CMOS_PORT, 2, "cmos", Cmos(plan.ram_size, low_ram, self._clock))
        if plan.spec.source == FW_CFG:
            items = self._fw_cfg_items if self._fw_cfg_items is not None else plan_items(plan, self.recording)
            device = FwCfg(items, self.memory, dma=plan.dma)
            bus.claim_ports(fw_cfg.FW_CFG_PORT, fw_cfg.FW_CFG_PORTS, FW_CFG_NAME, device, width=2)
            if device.dma_ports is not None:
                bus.claim_ports(fw_cfg.FW_CFG_DMA_PORT, fw_cfg.FW_CFG_DMA_PORTS, DMA_NAME, device.dma_ports, width=8)
        if plan.spec.chipset is not None:
            add_chipset(bus, plan.spec.chipset, self.memory, self.recording.functions)

    def stop_at_console_text(self, text: str) -> None:
        """Asks for a stop as soon as COM1 has printed `text`."""
        self._console_text = text.encode("utf-8", "surrogateescape")

    @property
    def stop(self) -> StopRequest | None:
        """What a device, or the policy for unclaimed accesses, has asked for."""
        if self._request is None and self._bus is not None and (access := self._bus.unclaimed_stop) is not None:
            return StopRequest(UNCLAIMED, f"nobody answers {access.kind} of {access.size} bytes at {access.address:#x}")
        return self._request

    @property
    def rom_writes(self) -> tuple[Access, ...]:
        """The first stores to a ROM that cannot be written: none of them had an effect."""
        start = rom_span(len(self.plan.rom)).start
        return tuple(Access(WRITE, start + store.offset, store.size, store.value, _ROM) for store in self._rom.stores)

    def print_byte(self, byte: int) -> None:
        """COM1 has sent a byte."""
        self.console.append(byte)
        if self._on_console is not None:
            self._on_console(bytes((byte,)))
        wanted = self._console_text
        if wanted and byte == wanted[-1] and self.console.endswith(wanted):
            self._request = StopRequest(CONSOLE, f"COM1 printed {wanted.decode(errors='replace')!r}")

    def give_up(self) -> None:
        """Asks for a stop, from another thread: nobody waits for the run any more."""
        self._request = StopRequest(PAUSED, "")

    def _reset(self, how: str) -> None:
        self._request = StopRequest(RESET, f"the guest asked for a reset by {how}")

    def _diverge(self, detail: str) -> None:
        self._request = StopRequest(DIVERGED, detail)

    def _exit(self, value: int) -> None:
        self._request = StopRequest(EXIT, f"the guest left with {value}", value)
