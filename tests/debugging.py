"""Boots that a debugger drives: a gdb, or a client that speaks its protocol byte by byte."""

import socket
import subprocess
import threading

from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.gdb.engine import DebuggedEngine
from pvhboot.emu.gdb.packets import PACKET_MAX
from pvhboot.emu.reasons import HANDOFF
from pvhboot.emu.session import boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.devices import DEBUG_EXIT_PORT
from pvhboot.shim.abi.elf import PF_R, PF_X, PT_LOAD, PT_NOTE
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf
from pvhboot.shim.machines import BARE, MIB
from pvhboot.shim.stock import default_blob, default_guest

PATIENCE = 20  # seconds that a test waits for the other side at most
TO_HANDOFF = Until(HANDOFF)
ENTRY = 0x100000
EXIT_7 = b"\xb0\x07\x66\xba" + DEBUG_EXIT_PORT.to_bytes(2, "little") + b"\xee"  # mov al, 7; mov dx, port; out dx, al


def kernel_of(code, symbols=None):
    """A PVH kernel of nothing but code, entered at ENTRY, its first byte."""
    entry_note = note(b"Xen\0", 18, ENTRY.to_bytes(4, "little"))
    segments = (
        ElfSegment(PT_LOAD, ENTRY, code, len(code), PF_R | PF_X, 1),
        ElfSegment(PT_NOTE, 0x200000, entry_note, len(entry_note), PF_R, 4),
    )
    return write_elf(32, ENTRY, segments, symbols or {"kernel_entry": ENTRY})


def debugged_boot(
    on_listening,
    *,
    kernel=None,
    engine="unicorn",
    until=TO_HANDOFF,
    port=0,
    seconds=PATIENCE,
    blob=None,
    watchers=(),
    **plan,
):
    """The outcome of a boot on `bare` that whoever `on_listening` (told the port) brings drives."""
    blob = default_blob(BARE) if blob is None else blob
    with Kernel.from_bytes(default_guest(64) if kernel is None else kernel, "guest") as opened:
        planned = make_plan(BARE, blob.data, opened, memory=64 * MIB, **plan)
        debugged = DebuggedEngine(get_engine(engine), port, planned, blob, on_listening)
        return boot(planned, blob, debugged, until, Limits(seconds=seconds), watchers=watchers)


class Client:
    """The other side of the protocol, with no mind of its own."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def send(self, data):
        self.socket.sendall(data)

    def packet(self, content):
        self.send(b"$%s#%02x" % (content, sum(content) & 0xFF))

    def take(self, count=1):
        """The next bytes."""
        while len(self._buffer) < count:
            data = self.socket.recv(4096)
            if not data:
                raise EOFError("the server has closed the connection")
            self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def answer(self):
        """The content of the next packet, acknowledged; its checksum must be right."""
        assert self.take() == b"$"
        content = b""
        while (byte := self.take()) != b"#":
            content += byte
        assert int(self.take(2), 16) == sum(content) & 0xFF
        self.send(b"+")
        return content

    def ask(self, content):
        """Sends a packet, and gives its answer."""
        self.packet(content)
        assert self.take() == b"+"
        return self.answer()

    def run(self, content):
        """Sends a packet that lets the CPU go: what is told on the console meanwhile, and the stop reply."""
        said, answer = [], self.ask(content)
        while answer.startswith(b"O") and answer != b"OK":
            said.append(bytes.fromhex(answer[1:].decode()).decode())
            answer = self.answer()
        return "".join(said), answer

    def interrupt(self, content):
        """Lets the CPU go and stops it, as Ctrl-C does: the stop reply."""
        self.packet(content)
        assert self.take() == b"+"
        self.send(b"\x03")
        return self.answer()

    def read_ip(self):
        """The instruction pointer, as the register 8 of the 32-bit description has it."""
        return int.from_bytes(bytes.fromhex(self.ask(b"p8").decode()), "little")

    def close(self):
        self.socket.close()


def driven_boot(script, **boot_keywords):
    """The outcome of a boot that a function drives, which is given a Client in a thread; what fails there fails here."""
    failed = []

    def drive(port):
        client = Client(port)
        try:
            script(client)
        except BaseException as error:
            failed.append(error)
        finally:
            client.close()

    threads = []

    def on_listening(port):
        threads.append(threading.Thread(target=drive, args=(port,)))
        threads[0].start()

    outcome = debugged_boot(on_listening, **boot_keywords)
    threads[0].join(PATIENCE)
    if failed:
        raise failed[0]
    return outcome


def gdb_boot(commands, *, script=None, arguments=(), on_start=lambda _gdb: None, **boot_keywords):
    """A boot that gdb drives in batch mode: what it has printed, and the outcome. `on_start` is told its process."""
    started = []

    def on_listening(port):
        line = ["gdb", "-nx", "-batch", *(["-x", str(script)] if script else []), *map(str, arguments)]
        for command in (f"target remote 127.0.0.1:{port}", *commands):
            line += ["-ex", command]
        started.append(
            subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
        on_start(started[0])

    try:
        outcome = debugged_boot(on_listening, **boot_keywords)
        printed, _ = started[0].communicate(timeout=PATIENCE)
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()
    return printed, outcome


def hello(client):
    """What gdb begins with; the features that the server has."""
    features = client.ask(b"qSupported:swbreak+;hwbreak+;xmlRegisters=i386")
    assert b"PacketSize=%x" % PACKET_MAX in features
    return features


def kill(client):
    """The end of a session, which has no answer that one waits for."""
    client.packet(b"k")
