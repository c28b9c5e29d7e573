"""A session of gdb's remote serial protocol: each packet to its answer, until gdb lets the CPU go.

Source: GDB manual, appendix E: "Packets", "Stop Reply Packets", "General Query Packets". All threads and processes of the
protocol are one: the CPU.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.errors import BootError, NoMemoryError

from ..reasons import EXIT
from . import files, monitor
from .connection import ClientGone, Connection
from .debuggee import BOTH, HARDWARE, LOADS, SOFTWARE, STORES, Debuggee, Halted, Watchpoint, signal_of
from .packets import PACKET_MAX, SIGINT, SIGTRAP, binary, number
from .registers import ARCHITECTURES, RegisterFile, target_description

DETACHED: Final = "detached"
KILLED: Final = "killed"
GONE: Final = "gone"
ENDED: Final = "ended"

_OK: Final = b"OK"
_NOT_KNOWN: Final = b""
_MALFORMED: Final = b"E16"  # EINVAL in hexadecimal, as the next is EFAULT
_NO_MEMORY: Final = b"E0e"
_TRANSFER_MAX: Final = PACKET_MAX // 2 - 16  # bytes in a packet, each of which may take two characters
_LINE_MAX: Final = 1024  # characters of text in a packet
_POINTS: Final = {b"0": SOFTWARE, b"1": HARDWARE, b"2": STORES, b"3": LOADS, b"4": BOTH}
_WATCHED_MAX: Final = 1 << 16  # bytes of a watchpoint
_FEATURES: Final = b"PacketSize=%x;qXfer:features:read+;swbreak+;hwbreak+;vContSupported+;QStartNoAckMode+" % PACKET_MAX


class Session:
    """What a connected gdb and a Debuggee have to say to each other. `program` is the firmware's ELF; None: nothing is known
    of it."""

    def __init__(self, connection: Connection, debuggee: Debuggee, plan: BootPlan, program: bytes | None) -> None:
        self._connection, self._debuggee, self._plan, self._program = connection, debuggee, plan, program
        self._cpu = debuggee.cpu
        self._file = RegisterFile(self._cpu.bits)  # as gdb has been told last
        self._bits = self._cpu.bits  # as they were where the CPU stood last
        self._hinted = False
        self._gdb_knows: tuple[str, ...] = ()  # of the reasons to stop
        self._halted = Halted(SIGTRAP)
        self._end: str | None = None

    def serve(self) -> tuple[str, str]:
        """Until gdb has let the CPU go: DETACHED, KILLED, ENDED (the run is over, and gdb knows) or GONE, with the words."""
        try:
            while self._end is None:
                self._connection.send(self._answer(self._connection.receive()))
        except ClientGone as gone:
            if self._end is None:  # else gdb has not waited for the answer
                return GONE, str(gone)
        assert self._end is not None
        return self._end, ""

    def _answer(self, packet: bytes) -> bytes:
        name = next(filter(packet.startswith, _PACKETS), None)
        if name is None:
            return _NOT_KNOWN
        try:
            return _PACKETS[name](self, packet[len(name) :])
        except (ValueError, IndexError):
            return _MALFORMED
        except NoMemoryError:
            return _NO_MEMORY
        except BootError as error:
            return b"E." + bytes(byte for byte in str(error).encode("ascii", "replace") if byte not in b"#$*}")

    def _supported(self, offered: bytes) -> bytes:
        features = offered.lstrip(b":").split(b";")
        self._gdb_knows = tuple(kind for kind in (SOFTWARE, HARDWARE) if f"{kind}+".encode() in features)
        return _FEATURES + (b";qXfer:exec-file:read+" if self._program is not None else b"")

    def _no_acknowledgement(self, _rest: bytes) -> bytes:
        self._connection.stop_acknowledging()
        return _OK

    def _features(self, span: bytes) -> bytes:
        if span.startswith(b"0,"):
            self._file = RegisterFile(self._cpu.bits)
        return _piece(target_description(self._file.bits), span)

    def _exec_file(self, rest: bytes) -> bytes:
        return _NOT_KNOWN if self._program is None else _piece(files.PATH, rest.partition(b":")[2])

    def _fetch(self, request: bytes) -> bytes:
        return _NOT_KNOWN if self._program is None else files.answer(self._program, request)

    def _read_registers(self, _rest: bytes) -> bytes:
        return self._file.pack(self._cpu)

    def _read_register(self, text: bytes) -> bytes:
        return self._file.pack_one(self._cpu, number(text))

    def _write_register(self, rest: bytes) -> bytes:
        register, _, value = rest.partition(b"=")
        self._file.write(self._cpu, number(register), value)
        return _OK

    def _write_registers(self, packed: bytes) -> bytes:
        self._file.write_all(self._cpu, packed)
        return _OK

    def _read_memory(self, span: bytes) -> bytes:
        address, size = _numbers(span)
        return self._debuggee.read(address, min(size, _TRANSFER_MAX)).hex().encode()

    def _write_memory(self, rest: bytes) -> bytes:
        span, _, data = rest.partition(b":")
        return self._store(span, bytes.fromhex(data.decode()))

    def _write_binary(self, rest: bytes) -> bytes:
        span, _, data = rest.partition(b":")
        return self._store(span, data)

    def _store(self, span: bytes, data: bytes) -> bytes:
        address, size = _numbers(span)
        if size != len(data):
            raise ValueError(f"{len(data)} bytes of data, not {size}")
        self._debuggee.write(address, data)
        return _OK

    def _insert(self, rest: bytes) -> bytes:
        kind, address, size = self._point(rest)
        if kind in (SOFTWARE, HARDWARE):
            self._debuggee.breakpoints[address] = kind
            return _OK
        if kind != STORES and not self._cpu.sees_memory:
            return _NOT_KNOWN
        watchpoint = Watchpoint(kind, address, size)
        if watchpoint not in self._debuggee.watchpoints:
            self._debuggee.watchpoints.append(watchpoint)
        return _OK

    def _remove(self, rest: bytes) -> bytes:
        kind, address, size = self._point(rest)
        if kind in (SOFTWARE, HARDWARE):
            self._debuggee.breakpoints.pop(address, None)
        elif (watchpoint := Watchpoint(kind, address, size)) in self._debuggee.watchpoints:
            self._debuggee.watchpoints.remove(watchpoint)
        return _OK

    @staticmethod
    def _point(rest: bytes) -> tuple[str, int, int]:
        kind, _, span = rest.partition(b",")
        address, size = _numbers(span.partition(b";")[0])
        if kind not in _POINTS or size > _WATCHED_MAX:
            raise ValueError(f"no point of kind {kind!r} and {size} bytes")
        return _POINTS[kind], address, size

    def _reason(self, _rest: bytes) -> bytes:
        return self._stop_reply()

    def _action(self, actions: bytes) -> bytes:
        """The first of vCont's actions, which is the one for the only thread. Its signal, if it has one, is nobody's."""
        action = actions.partition(b";")[0].partition(b":")[0]
        if action[:1] == b"r":
            start, end = _numbers(action[1:])
            return self._resume(lambda: self._debuggee.step_out_of(range(start, end)))
        if action[:1] in (b"c", b"C"):
            return self._resume(self._debuggee.go_on)
        if action[:1] in (b"s", b"S"):
            return self._resume(self._debuggee.step)
        raise ValueError(f"no action {action!r}")

    def _go_on(self, address: bytes) -> bytes:
        if address:
            raise ValueError("to go on elsewhere, write the instruction pointer")
        return self._resume(self._debuggee.go_on)

    def _step(self, address: bytes) -> bytes:
        if address:
            raise ValueError("to go on elsewhere, write the instruction pointer")
        return self._resume(self._debuggee.step)

    def _resume(self, advance: Callable[[], Halted]) -> bytes:
        if (stop := self._cpu.stop) is not None:
            self._end = ENDED
            if stop.reason == EXIT and stop.value is not None:
                return b"W%02x" % (stop.value & 0xFF)
            return b"X%02x" % signal_of(stop)
        with self._connection.interrupting(self._cpu.pause):
            if self._connection.interrupted:
                self._halted = Halted(SIGINT)
            else:
                self._halted = advance()
        self._say([*self._halted.said, *self._about_mode()])
        return self._stop_reply()

    def _about_mode(self) -> list[str]:
        bits = self._cpu.bits
        if bits != self._bits:
            self._bits = bits
            return [f"{bits}-bit code from here on"]
        if (bits == 64) == (self._file.bits == 64) or self._hinted:  # 16- and 32-bit code have the same registers
            return []
        self._hinted = True
        return [
            f"gdb still takes it for {self._file.bits}-bit code: source pvhboot.gdb, or type `unset tdesc filename` "
            f"and `set architecture {ARCHITECTURES[bits]}`"
        ]

    def _stop_reply(self) -> bytes:
        signal, _, point, address = self._halted
        why = ""
        if point in (SOFTWARE, HARDWARE):
            why = f"{point}:;" if point in self._gdb_knows else ""
        elif point:
            why = f"{point}:{address:x};"
        return b"T%02xthread:1;" % signal + why.encode()

    def _say(self, lines: list[str]) -> None:
        """On gdb's console, while it waits for the CPU to stop."""
        for packet in _console(f"pvhboot: {line}" for line in lines):
            self._connection.send(packet)

    def _command(self, packed: bytes) -> bytes:
        command = bytes.fromhex(packed.decode()).decode(errors="replace")
        try:
            lines = monitor.answer(self._debuggee, self._plan, command)
        except BootError as error:
            lines = [str(error)]
        for packet in _console(lines):
            self._connection.send(packet)
        return _OK

    def _detach(self, _rest: bytes) -> bytes:
        self._end = DETACHED
        return _OK

    def _kill(self, _rest: bytes) -> bytes:
        self._end = KILLED
        return _OK

    def _ok(self, _rest: bytes) -> bytes:
        return _OK


def _console(lines: Iterator[str] | list[str]) -> Iterator[bytes]:
    for line in lines:
        text = line + "\n"
        for at in range(0, len(text), _LINE_MAX):
            yield b"O" + text[at : at + _LINE_MAX].encode().hex().encode()


def _numbers(span: bytes) -> tuple[int, int]:
    """An address and a size, both in hexadecimal."""
    first, _, second = span.partition(b",")
    return number(first), number(second)


def _piece(data: bytes, span: bytes) -> bytes:
    """What qXfer gives of an object: `m` if there is more behind it, `l` if not."""
    offset, size = _numbers(span)
    part = data[offset : offset + min(size, _TRANSFER_MAX)]
    return (b"m" if offset + len(part) < len(data) else b"l") + binary(part)


# By what a packet begins with; the first that fits counts.
_PACKETS: Final[Mapping[bytes, Callable[[Session, bytes], bytes]]] = {
    b"qSupported": Session._supported,
    b"QStartNoAckMode": Session._no_acknowledgement,
    b"qXfer:features:read:target.xml:": Session._features,
    b"qXfer:exec-file:read:": Session._exec_file,
    b"vFile:": Session._fetch,
    b"qRcmd,": Session._command,
    b"qAttached": lambda _session, _rest: b"1",  # so that gdb, when it ends, detaches and does not kill
    b"qC": lambda _session, rest: _NOT_KNOWN if rest else b"QC1",  # qCRC is another packet
    b"qfThreadInfo": lambda _session, _rest: b"m1",
    b"qsThreadInfo": lambda _session, _rest: b"l",
    b"H": Session._ok,
    b"T": Session._ok,
    b"?": Session._reason,
    b"g": Session._read_registers,
    b"G": Session._write_registers,
    b"p": Session._read_register,
    b"P": Session._write_register,
    b"m": Session._read_memory,
    b"M": Session._write_memory,
    b"X": Session._write_binary,
    b"Z": Session._insert,
    b"z": Session._remove,
    b"vCont?": lambda _session, _rest: b"vCont;c;C;s;S;r",
    b"vCont;": Session._action,
    b"c": Session._go_on,
    b"s": Session._step,
    b"D": Session._detach,
    b"vKill;": Session._kill,
    b"k": Session._kill,
}
