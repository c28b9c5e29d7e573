"""A boot under QEMU, with its marks.

The CPU stops at each place by a hardware breakpoint of QEMU's gdb stub. There is one at a time, in the order in which a boot
comes to them: so it need not be asked which one it was, and KVM's four suffice. What COM1 and the marker ports get comes
through pipes. A mark is taken when the news of it is here, and a stop costs the guest the time until it is resumed: nothing is
subtracted for that.

TCG translates what lies on the page of a breakpoint instruction by instruction. The page of start_kernel may be that of what
clears the kernel's bss, megabytes of it, just before: so there the breakpoint is not set until that is over.
"""

import selectors
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi.devices import DEBUG_EXIT_PORT
from pvhboot.shim.abi.firmware import MARKER_PORTS
from pvhboot.shim.abi.x86 import PAGE_SIZE
from pvhboot.shim.errors import BootError

from ..bus import OUT, Access
from ..engines.base import Limits
from ..engines.names import QEMU
from ..engines.qemu.command import boot_arguments, byte_port, character_devices, stopped_machine
from ..engines.qemu.gdb import Gdb, GdbGone
from ..engines.qemu.process import DAEMONIZE, QemuProcess, patience
from ..engines.qemu.state import parse_registers
from ..gdb.packets import SIGTRAP
from ..reasons import EXIT as GUEST_EXIT
from ..reasons import INTERRUPTED, LIMIT, RESET
from .goal import missing
from .marks import EXIT, FIRST_INSTRUCTION, MARKS, START_KERNEL, VMM_START, Timeline
from .recorder import Recorder

_GDB: Final = "gdb"
_CONSOLE: Final = "console"
_EXIT: Final = "exit"
_MARKERS: Final = {f"marks-{port:x}": port for port in MARKER_PORTS}
_CLEARED: Final = "idt_setup_early_handler"  # of Linux, called by x86_64_start_kernel (arch/x86/kernel/head64.c)
_PIECES: Final = 16  # of the console that are taken at once: as many as its pipe holds
_MOMENT: Final = 2.0  # seconds for QEMU to say where the guest is
_LOOK: Final = 0.2  # seconds between two looks at the clock


class QemuBoot(NamedTuple):
    """What QEMU is to boot: on which machine of its, with so many bytes of RAM; `arguments` names firmware and kernel, given a
    directory for files that are made for it. `places` are linear addresses by the names of marks; `cleared` is one to which
    Linux comes between clearing its bss and start_kernel, None if none is known."""

    machine: str
    memory: int
    arguments: Callable[[str], Sequence[str]]
    places: Mapping[str, int]
    cleared: int | None = None


def plan_boot(plan: BootPlan, places: Mapping[str, int]) -> QemuBoot:
    """Boots a plan as the engine qemu does."""
    return QemuBoot(plan.spec.qemu, plan.ram_size, partial(boot_arguments, plan), places, cleared_place(plan.kernel))


def cleared_place(kernel: Kernel) -> int | None:
    """A place for QemuBoot.cleared."""
    try:
        symbol = kernel.symbol(_CLEARED)
    except BootError:  # a broken symbol table, which was told when start_kernel was looked for
        return None
    return None if symbol is None else symbol.vaddr


def take_qemu_timeline(
    boot: QemuBoot,
    accelerator: str,
    extra: Sequence[str],
    goal: str,
    seconds: float,
    *,
    label: str,
    counts: Mapping[str, int],
    absent: Mapping[str, str],
    describe: Callable[[int], str] = hex,
) -> Timeline:
    """Boots up to the mark `goal`, or to whatever ends the run before, a Ctrl-C, too. `extra` are further arguments for QEMU,
    `counts` as of Timeline, `absent`: why a mark was not looked for, `describe`: a linear address in words. BootError, with
    QEMU's own words, if it does not start."""
    if DAEMONIZE in extra:
        raise BootError(f"{DAEMONIZE}: nobody could time a QEMU in the background")

    def line(program: str, directory: str, descriptors: Mapping[str, int]) -> list[str]:
        words = stopped_machine(program, boot.machine, accelerator, boot.memory)
        words += character_devices((_GDB,), (_CONSOLE, _EXIT, *_MARKERS), descriptors)
        words += ["-gdb", f"chardev:{_GDB}", "-serial", f"chardev:{_CONSOLE}", *byte_port(DEBUG_EXIT_PORT, _EXIT)]
        for name, port in _MARKERS.items():
            words += byte_port(port, name)
        return [*words, *boot.arguments(directory)]

    recorder = Recorder(goal)
    with QemuProcess(line, extra, (_GDB,), (_CONSOLE, _EXIT, *_MARKERS)) as process:
        recorder.reach(VMM_START, process.start_ns)
        session = _Session(process, recorder, boot, seconds)
        end = session.run()
    if session.stopped_at is not None:
        end += f", at {describe(session.stopped_at)}"

    def place(name: str) -> str:
        return describe(boot.places[name]) if name in boot.places else ""

    return Timeline(
        label,
        f"{QEMU} {accelerator}",
        recorder.marks(place),
        counts,
        end,
        missing(goal, recorder.has, absent),
        recorder.start_ns,
    )


def stops(boot: QemuBoot) -> Iterator[tuple[str, int]]:
    """Where the CPU stops on its way, by the name of the mark, which is empty of a place that is none."""
    for name in MARKS[MARKS.index(FIRST_INSTRUCTION) + 1 :]:
        if name not in boot.places:
            continue
        address = boot.places[name]
        if name == START_KERNEL and boot.cleared is not None and boot.cleared // PAGE_SIZE != address // PAGE_SIZE:
            yield "", boot.cleared
        yield name, address


class _Session:
    """One run: QEMU's process, and what comes through its channels. `stopped_at`: the linear address at which the guest was
    when its time was over."""

    def __init__(self, process: QemuProcess, recorder: Recorder, boot: QemuBoot, seconds: float) -> None:
        self._process = process
        self._recorder = recorder
        self._left = list(stops(boot))
        self._limits = Limits(seconds=seconds)
        self.stopped_at: int | None = None
        self._gdb = Gdb(process.sockets[_GDB])
        self._gdb.socket.settimeout(patience(seconds))
        self._end = ""

    def run(self) -> str:
        """How it has ended, in words."""
        try:
            self._gdb.wait_until_ready()
            self._arm()
            self._recorder.reach(FIRST_INSTRUCTION)
            self._gdb.resume()
        except GdbGone:
            raise BootError(f"QEMU does not start: {self._process.last_words()}") from None
        except TimeoutError:
            raise BootError(f"QEMU does not start: it has not answered for {self._gdb.socket.gettimeout():g} seconds") from None
        try:
            self._watch()
        except GdbGone:
            self._drain()
            self._end = self._end or self._why_it_has_gone()
        except TimeoutError:
            self._end = f"{LIMIT}: {self._limits.seconds_over}, and QEMU does not answer"
        except KeyboardInterrupt:
            self._end = INTERRUPTED
        return f"{self._recorder.goal} was reached" if self._recorder.done else self._end

    def _why_it_has_gone(self) -> str:
        words = self._process.last_words()
        if self._process.status == 0:  # -no-reboot
            return f"{RESET}: the guest was reset, by a port or by a triple fault, or has turned the machine off"
        return f"QEMU has gone: {words}"

    def _watch(self) -> None:
        """Until there is an end."""
        clock = self._recorder.clock
        deadline = clock() + self._limits.seconds * 1e9
        with selectors.DefaultSelector() as selector:
            selector.register(self._gdb.socket, selectors.EVENT_READ)
            for pipe in self._process.pipes.values():
                selector.register(pipe, selectors.EVENT_READ)
            while not self._recorder.done and not self._end:
                ready = selector.select(_LOOK)
                self._drain()  # what was printed before a stop comes before it, by its time, too
                now = clock()
                if any(key.fileobj is self._gdb.socket for key, _ in ready):
                    self._stopped(now)
                if now >= deadline and not self._recorder.done and not self._end:
                    self._end = f"{LIMIT}: {self._limits.seconds_over}"
                    self.stopped_at = self._where()

    def _where(self) -> int | None:
        """Stops the guest, and says where; None if QEMU does not answer for a moment, or has just gone."""
        self._gdb.socket.settimeout(_MOMENT)
        try:
            self._gdb.interrupt()
            return parse_registers(self._gdb.monitor("info registers")).linear_ip
        except (TimeoutError, GdbGone, BootError):
            return None

    def _arm(self) -> None:
        """There is a breakpoint at the next place."""
        if self._left:
            self._gdb.break_at(self._left[0][1], True)

    def _stopped(self, now: int) -> None:
        signal = self._gdb.stop_signal()
        if signal is None or self._recorder.done:
            return
        if signal != SIGTRAP or not self._left:
            why = self._process.complaint()
            self._end = f"QEMU cannot go on{': ' + why if why else ''}"
            return
        name, address = self._left.pop(0)
        if name:
            self._recorder.reach(name, now)
        if not self._recorder.done:
            self._gdb.break_at(address, False)
            self._arm()
            self._gdb.resume()

    def _drain(self) -> None:
        """What has come through the pipes. The console is emptied last and looked at first: nothing that was printed before
        a marker or the exit can be missed then."""
        left = self._process.receive(_EXIT)
        marked = {port: self._process.receive(name) for name, port in _MARKERS.items()}
        for _ in range(_PIECES):  # a guest may print as fast as this reads
            if not (printed := self._process.receive(_CONSOLE)):
                break
            for byte in printed:
                self._recorder.on_console(bytes((byte,)))
        for port, values in marked.items():
            for value in values:
                self._recorder.on_access(Access(OUT, port, 1, value, ""))
        if left:
            how = f"the guest left with {left[0]}"
            self._end = f"{GUEST_EXIT}: {how}"
            self._recorder.reach(EXIT, place=how)
