"""Board: memory, bus and devices of one machine. It serves every engine and knows none."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from pvhboot.loader.image import SizedSource
from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi import devices as ports
from pvhboot.shim.abi import fw_cfg
from pvhboot.shim.abi.firmware import DEBUGCON_PORT, FW_CFG, POST_PORT
from pvhboot.shim.machines import ram_spans, rom_span

from .bus import WRITE, Access, Bus, Deferred, Device
from .devices.debug_console import DebugConsole
from .devices.debug_exit import DebugExit
from .devices.post import PostPort
from .devices.rom import RomWriteTrap
from .devices.serial import Serial16550
from .kept import keep_printed
from .reasons import CONSOLE, DIVERGED, EXIT, LEFT, PAUSED, RESET, UNCLAIMED
from .weakly import weakly

if TYPE_CHECKING:  # what not each boot has to wait for
    from datetime import datetime

    from pvhboot.loader.recording import Recording

    from .clock import Clock
    from .devices.lapic import LocalApic
    from .interrupts import InterruptLines
    from .replay import Replay

_ROM: Final = "rom"


class StopRequest(NamedTuple):
    """A device ends the run: `reason` a word of `reasons`, with its words and the guest's value, if any."""

    reason: str
    detail: str
    value: int | None = None


class Input(Protocol):
    """What somebody does at the board while it runs: an engine asks for it."""

    def poll(self, seconds: float) -> None:
        """Gives the devices what has come; waits for it so long at most. Asked every 10 ms or so while the guest executes, and
        while it idles in place of sleeping. Then `Board.stop` may have changed."""

    def waking(self, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """As long as the context lasts `wake` is called, in another thread, when there is something to be polled."""


def _interrupt_lines() -> "InterruptLines":
    from .interrupts import InterruptLines

    return InterruptLines()


def _line_of(lines: "InterruptLines | None", number: int) -> Callable[[bool], None]:
    return (lambda _level: None) if lines is None else lines.line(number)


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
        clock: "datetime | None" = None,
        fw_cfg_items: Mapping[int, SizedSource] | None = None,
        recording: "Recording | None" = None,
        replay: "Replay | None" = None,
        on_console: Callable[[bytes], None] | None = None,
        interrupts: bool = False,
    ) -> None:
        """`memory`, if there is one, has the plan placed already; `fw_cfg_items` replace those of the plan and of `recording`,
        which takes the place of the machine's default; `clock` is the time at power on (default: cmos.POWER_ON_TIME). With a
        `replay` there are no devices but those that print or end a run: its transcript answers, and no interrupt comes.
        `interrupts`: with the lines, controllers and timers that an operating system needs beyond the handoff. Raises BootError
        if the transcript is of another boot."""
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
        self.on_console = on_console
        self._rom = RomWriteTrap()
        self.interrupts = _interrupt_lines() if interrupts and replay is None else None
        self.has_controllers = True  # of interrupts, with their timers; False, before there is a bus: the engine has them
        self.apic: LocalApic | None = None  # with `interrupts`, as soon as there is a bus
        self.input: Input | None = None
        self.deadline = inf  # by time.monotonic, while the guest executes: when the run is over
        self.serial = Serial16550(weakly(self.print_byte), self._line(ports.COM1_IRQ))

    @cached_property
    def clock(self) -> "Clock":
        """The time of the timers."""
        from .clock import Clock

        return Clock()

    @property
    def is_stock(self) -> bool:
        """Nobody has given it memory, items, a recording, a replay or a clock, or has looked at its memory or its bus: it is as
        the plan says."""
        changed = self._clock, self._memory, self._bus, self._fw_cfg_items, self._recording, self._replay, self.input
        return all(part is None for part in changed)

    @property
    def memory(self) -> GuestMemory:
        """RAM and ROM; BootError, the first time, for what cannot be placed."""
        if self._memory is None:
            self._memory = self.plan.memory()
        return self._memory

    @property
    def recording(self) -> "Recording":
        """What the machine tells its firmware; only of one that has fw_cfg."""
        if self._recording is None:
            from pvhboot.loader.recording import default_recording

            self._recording = default_recording(self.plan.spec)
        return self._recording

    @property
    def host_acpi(self) -> bool:
        """fw_cfg is known to have ACPI tables."""
        if self._replay is not None:
            return self._replay.transcript.subject.host_acpi
        if not self.plan.spec.acpi or self._fw_cfg_items is not None:
            return False
        from pvhboot.shim.abi.acpi_loader import LOADER_FILE

        return LOADER_FILE in self.recording.files

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

    def _line(self, number: int) -> Callable[[bool], None]:
        """What a device calls to set an interrupt line; without such lines, nothing."""
        return _line_of(self.interrupts, number)

    def _assemble(self) -> Bus:
        plan = self.plan
        replay = self._replay
        if replay is None:
            bus = Bus(plan.spec.unclaimed)
        else:
            from .replay import ReplayBus

            modules = [module.payload for module in plan.modules]
            bus = ReplayBus(replay, plan.spec.unclaimed, self.memory, modules, weakly(self._diverge))
        rom = rom_span(len(plan.rom))
        bus.claim_memory(rom.start, rom.size, _ROM, self._rom)
        bus.claim_ports(ports.COM1_PORT, ports.UART_SIZE, "serial", self.serial)
        bus.claim_ports(DEBUGCON_PORT, 1, "debugcon", DebugConsole(self.debug_console))
        bus.claim_ports(POST_PORT, 1, "post", PostPort(self.post_codes))
        if plan.spec.reset_ports or self.interrupts is not None:
            from .devices.i8042 import I8042, FastReset, KeyboardController

            controller: I8042 | KeyboardController = I8042(weakly(self._reset))
            if self.interrupts is not None:
                controller = KeyboardController(weakly(self._reset), self._line(ports.KEYBOARD_IRQ))
            bus.claim_ports(ports.I8042_DATA_PORT, 1, "i8042", controller)
            bus.claim_ports(ports.I8042_COMMAND_PORT, 1, "i8042", controller.command_port)
            bus.claim_ports(ports.PORT_92, 1, "port92", FastReset(weakly(self._reset)))
        bus.claim_ports(ports.DEBUG_EXIT_PORT, ports.DEBUG_EXIT_SIZE, "debug-exit", DebugExit(weakly(self._exit)), width=4)
        if replay is None or replay.with_devices:
            self._add_sources(bus)
        return bus

    def _add_sources(self, bus: Bus) -> None:
        """Those devices of which the firmware learns something."""
        plan = self.plan
        low_ram = ram_spans(plan.spec, plan.ram_size)[0].size
        clock = None if self.interrupts is None else self.clock
        power_on, lines = self._clock, self.interrupts  # not by way of the board: see weakly

        def cmos() -> Device:
            from pvhboot.shim.abi import rtc

            from .devices.cmos import POWER_ON_TIME, Cmos

            return Cmos(plan.ram_size, low_ram, power_on or POWER_ON_TIME, clock, _line_of(lines, rtc.RTC_IRQ))

        bus.claim_ports(ports.CMOS_PORT, 2, "cmos", Deferred(cmos))
        if plan.spec.source == FW_CFG:
            from pvhboot.loader.fw_cfg import fw_cfg_items as plan_items

            from .devices.fw_cfg import DMA_NAME, FwCfg
            from .devices.fw_cfg import NAME as FW_CFG_NAME

            items = self._fw_cfg_items if self._fw_cfg_items is not None else plan_items(plan, self.recording)
            device = FwCfg(items, self.memory, dma=plan.dma, is_over=weakly(self._is_over))
            bus.claim_ports(fw_cfg.FW_CFG_PORT, fw_cfg.FW_CFG_PORTS, FW_CFG_NAME, device, width=2)
            if device.dma_ports is not None:
                bus.claim_ports(fw_cfg.FW_CFG_DMA_PORT, fw_cfg.FW_CFG_DMA_PORTS, DMA_NAME, device.dma_ports, width=8)
        has_controllers = self.interrupts is not None and self.has_controllers
        if plan.spec.chipset is not None or has_controllers:
            from .interrupt_controllers import add_local_apic, add_pics

            pics = add_pics(bus)
            if self.interrupts is not None and has_controllers:
                self.apic = add_local_apic(bus, self.interrupts, self.clock, pics)
        reset_control = None
        if self.interrupts is not None:
            from .devices.i8042 import ResetControl

            reset_control = ResetControl(weakly(self._reset))
        if plan.spec.chipset is not None:
            from .chipset import add_chipset

            add_chipset(bus, plan.spec.chipset, self.memory, self.recording.functions, reset_control, clock)
        elif reset_control is not None:
            bus.claim_ports(ports.RESET_CONTROL_PORT, 1, "reset-control", reset_control)

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
        keep_printed(self.console)
        if self.on_console is not None:
            self.on_console(bytes((byte,)))
        wanted = self._console_text
        if wanted and byte == wanted[-1] and self.console.endswith(wanted):
            self._request = StopRequest(CONSOLE, f"COM1 printed {wanted.decode(errors='replace')!r}")

    def _is_over(self) -> bool:
        return monotonic() >= self.deadline

    def give_up(self) -> None:
        """Asks for a stop, from another thread: nobody waits for the run any more."""
        self._request = StopRequest(PAUSED, "")

    def leave(self, how: str) -> None:
        """Whoever sits at the console asks for a stop."""
        self._request = StopRequest(LEFT, how)

    def _reset(self, how: str) -> None:
        self._request = StopRequest(RESET, f"the guest asked for a reset by {how}")

    def _diverge(self, detail: str) -> None:
        self._request = StopRequest(DIVERGED, detail)

    def _exit(self, value: int) -> None:
        self._request = StopRequest(EXIT, f"the guest left with {value}", value)
