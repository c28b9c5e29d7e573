"""What loader.fw_cfg says of QEMU's fw_cfg, and how our device behaves, against a live QEMU: item by item, access by access.

The machine never runs (-S): the accesses come over QEMU's qtest protocol (docs/devel/qtest.rst).
"""

import socket
import struct
import subprocess
from contextlib import contextmanager

import pytest
from host import QEMU, qemu_problem
from pvhboot.emu.board import Board
from pvhboot.loader.fw_cfg import fw_cfg_items
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.e820 import E820Entry
from pvhboot.shim.machines import GIB, MIB, MICROVM
from pvhboot.shim.stock import default_blob, default_guest

ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
DESCRIPTOR, BUFFER = 0x1000, 0x2000
NOWHERE = 0x8000000  # no memory, in a machine of 64 MiB
TIMEOUT = 30.0  # seconds, for each answer
KVM_RESERVES = E820Entry(0xFEFFC000, 0x4000, 2)

# What QEMU has and we do not: keys whose item is not all zeros, and files.
OTHER_KEYS: set[int] = set()
OTHER_FILES = {b"bootorder", b"etc/fdt", b"genroms/pvh.bin"}

# The head of the kernel's file, as QEMU means it: it points into a stack frame that is gone (x86_load_linux), so only its
# size can be compared.
SETUP_DATA = 0x18


@contextmanager
def live(folder, arguments):
    """A QEMU that does not run; the Live machine in it."""
    path = folder / "qtest"
    command = [QEMU, "-machine", "microvm,acpi=off", "-S", "-nodefaults", "-display", "none"]
    command += ["-qtest", f"unix:{path}", "-qtest-log", "/dev/null", *map(str, arguments)]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        server.settimeout(TIMEOUT)
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            try:
                with server.accept()[0] as connection, connection.makefile("rb") as answers:
                    connection.settimeout(TIMEOUT)
                    yield Live(connection, answers)
            finally:
                process.kill()


class Live:
    """A machine by the qtest protocol."""

    def __init__(self, connection, answers):
        self._socket, self._answers = connection, answers

    def ask(self, *commands):
        """All commands at once; the values that they give."""
        self._socket.sendall("".join(f"{command}\n" for command in commands).encode())
        values = []
        while len(values) < len(commands):
            line = self._answers.readline().decode().split()
            assert line, "QEMU has left"
            if line[0] != "IRQ":
                assert line[0] == "OK", line
                values.append(line[1] if len(line) > 1 else "")
        return values

    def port_read(self, port, size):
        return int(self.ask(f"in{' bw l'[size]} {port:#x}")[0], 16)

    def port_write(self, port, size, value):
        self.ask(f"out{' bw l'[size]} {port:#x} {value:#x}")

    def read(self, paddr, size):
        return bytes.fromhex(self.ask(f"read {paddr:#x} {size:#x}")[0][2:])

    def write(self, paddr, data):
        self.ask(f"write {paddr:#x} {len(data):#x} 0x{data.hex()}")

    def item(self, key, size):
        """The first bytes of an item, by DMA."""
        assert transfer(self, key << 16 | SELECT | READ, size) == 0
        return self.read(BUFFER, size)

    def item_by_port(self, key, size):
        self.port_write(0x510, 2, key)
        return bytes(int(value, 16) for value in self.ask(*["inb 0x511"] * size))


class Ours:
    """The board of a plan, with the same face."""

    def __init__(self, plan):
        self._memory = plan.memory()
        self._board = Board(plan, self._memory)  # its devices live as long as it does
        bus = self._board.bus
        self.port_read, self.port_write, self.read = bus.port_read, bus.port_write, self._memory.read

    def write(self, paddr, data):
        self._memory.view(paddr, len(data))[:] = data


def start(machine, descriptor):
    machine.port_write(0x514, 4, int.from_bytes((descriptor >> 32).to_bytes(4, "big"), "little"))
    machine.port_write(0x518, 4, int.from_bytes((descriptor & 0xFFFFFFFF).to_bytes(4, "big"), "little"))


def transfer(machine, control, length, address=BUFFER):
    """Executes a descriptor; its control word afterwards."""
    machine.write(DESCRIPTOR, struct.pack(">IIQ", control, length, address))
    start(machine, DESCRIPTOR)
    return int.from_bytes(machine.read(DESCRIPTOR, 4), "big")


@pytest.fixture(params=["tcg", "kvm"])
def accel(request):
    if problem := qemu_problem(request.param):
        pytest.skip(problem)
    return request.param


@pytest.fixture
def pair(tmp_path):
    """A plan and the QEMU that boots the same."""

    def make(accel, memory, *, initrd=0, cmdline=None, dma=True, kernel=None):
        if kernel is None:
            kernel = tmp_path / "kernel"
            kernel.write_bytes(default_guest(64))
        blob = default_blob(MICROVM)
        (tmp_path / "rom").write_bytes(blob.data)
        arguments = ["-accel", accel, "-m", f"{memory >> 20}M", "-bios", tmp_path / "rom", "-kernel", kernel]
        modules = []
        if initrd:
            path = tmp_path / "initrd"
            path.write_bytes(bytes(at * 7 + 1 & 0xFF for at in range(initrd)))
            modules.append(Module(str(path)))
            arguments += ["-initrd", path]
        if cmdline is not None:
            arguments += ["-append", cmdline]
        if not dma:
            arguments += ["-global", "fw_cfg_io.dma_enabled=off"]
        plan = make_plan(
            MICROVM,
            blob.data,
            Kernel.open(str(kernel)),
            memory=memory,
            modules=modules,
            cmdline=cmdline,
            host_reserved=[KVM_RESERVES] if accel == "kvm" else [],
            dma=dma,
        )
        return plan, live(tmp_path, arguments)

    return make


def compare(plan, machine):
    """Every item of ours is QEMU's, and what else QEMU has is known."""
    read = machine.item if plan.dma else machine.item_by_port
    items = fw_cfg_items(plan)
    ours = {key: whole(item) for key, item in items.items()}
    directory = ours.pop(0x19)
    others = set()
    for key in (*range(0x19), *range(0x1A, 0x20), *range(0x8000, 0x8020)):
        found = read(key, len(ours.get(key, b"")) + 16)
        if key == SETUP_DATA:
            found = ours[key] + found[len(ours[key]) :]
        if key in ours:
            assert found == ours[key] + bytes(16), hex(key)
        elif any(found):
            others.add(key)
    assert others == OTHER_KEYS
    files = dict(entries(read(0x19, 4 + 64 * 40)))
    mine = dict(entries(directory))
    assert list(files) == sorted(files)
    assert set(files) - set(mine) == OTHER_FILES
    for name, (size, key) in mine.items():
        assert files[name][0] == size
        assert read(files[name][1], size + 16) == ours[key] + bytes(16), name


def whole(item):
    data = bytearray(item.size)
    item.read_into(0, memoryview(data))
    return bytes(data)


def entries(directory):
    """(name, (size, key)) of each file."""
    for index in range(int.from_bytes(directory[:4], "big")):
        size, key, reserved, name = struct.unpack_from(">IHH56s", directory, 4 + 64 * index)
        assert reserved == 0
        yield name.rstrip(b"\0"), (size, key)


CONFIGURATIONS = {
    "64M": (64 * MIB, {}),
    "512M-all": (512 * MIB, {"initrd": 5000, "cmdline": "console=ttyS0"}),
    "2816M-initrd-1": (2816 * MIB, {"initrd": 1}),
    "3G-initrd-a-page": (3 * GIB, {"initrd": 4096, "cmdline": ""}),
    "3073M-initrd-a-page-less-1": (3073 * MIB, {"initrd": 4095}),
    "5G-initrd-large": (5 * GIB, {"initrd": (1 << 20) + 3, "cmdline": "x" * 3000}),
    "64M-initrd-a-page-and-1": (64 * MIB, {"initrd": 4097}),
    "64M-no-dma": (64 * MIB, {"dma": False}),
    "5G-no-dma-all": (5 * GIB, {"initrd": 777, "cmdline": "hello world", "dma": False}),
}


@pytest.mark.parametrize(("memory", "more"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_every_item_is_qemus(pair, accel, memory, more):
    plan, qemu = pair(accel, memory, **more)
    with qemu as machine:
        compare(plan, machine)


# Not xen-shim: it has a multiboot header, and then QEMU does not look for a PVH entry.
@pytest.mark.parametrize("name", ["vmlinux-6.1", "vmlinux-6.12", "grub-i386-xen_pvh.bin"])
def test_every_item_is_qemus_for_a_real_kernel(pair, guest_file, name):
    if problem := qemu_problem():
        pytest.skip(problem)
    plan, qemu = pair("tcg", 512 * MIB, initrd=100, cmdline="x", kernel=guest_file(name))
    with qemu as machine:
        compare(plan, machine)


def selector(machine):
    """Selecting, and reading by port."""

    def next_bytes(count):
        return [machine.port_read(0x511, 1) for _ in range(count)]

    yield next_bytes(5)  # the signature is selected at power on
    for key in (0, 0x4000, 0x8002, 0xC002, 0x4002, 0x1234, 0x7777, 0xFFFF, 0x10):
        machine.port_write(0x510, 2, key)
        yield key, next_bytes(5)
    machine.port_write(0x510, 2, 0)
    yield machine.port_read(0x510, 2), machine.port_read(0x510, 1), next_bytes(1)
    machine.port_write(0x510, 1, 1)
    machine.port_write(0x511, 1, 1)
    yield next_bytes(1)


def dma_register(machine):
    """Reading the signature, in every width and place; stores that do nothing, or use the upper half once."""
    for port in range(0x514, 0x51C):
        yield hex(port), [machine.port_read(port, size) for size in (1, 2, 4)]
    for port, size, value in ((0x518, 2, 0x1000), (0x518, 1, 0x10), (0x514, 2, 0x1000)):
        machine.write(DESCRIPTOR, struct.pack(">IIQ", SELECT | READ, 4, BUFFER))
        machine.port_write(port, size, value)
        yield machine.read(DESCRIPTOR, 4)
    for descriptor in (DESCRIPTOR | 1 << 32, DESCRIPTOR):
        start(machine, descriptor)
        yield machine.read(DESCRIPTOR, 4)
    start(machine, NOWHERE)
    yield machine.port_read(0x511, 1)


TRANSFERS = {
    "read": (SELECT | READ, 4, BUFFER),
    "read-past-the-end": (SELECT | READ, 8, BUFFER),
    "read-by-key": (0x10 << 16 | SELECT | READ, 3, BUFFER),
    "read-no-item": (0x1234 << 16 | SELECT | READ, 8, BUFFER),
    "read-nothing": (SELECT | READ, 0, BUFFER),
    "read-nothing-nowhere": (SELECT | READ, 0, NOWHERE),
    "select": (SELECT, 2, BUFFER),
    "skip": (SELECT | SKIP, 2, 0),
    "skip-past-the-end": (SELECT | SKIP, 100, 0),
    "read-and-skip": (SELECT | READ | SKIP, 2, BUFFER),
    "read-and-write": (SELECT | READ | WRITE, 2, BUFFER),
    "write": (SELECT | WRITE, 2, BUFFER),
    "write-and-skip": (SELECT | WRITE | SKIP, 2, BUFFER),
    "write-nothing": (SELECT | WRITE, 0, BUFFER),
    "write-no-item": (0x1234 << 16 | SELECT | WRITE, 2, BUFFER),
    "nowhere": (SELECT | READ, 2, NOWHERE),
    "over-the-end-of-ram": (SELECT | READ, 3, 64 * MIB - 2),
    "address-wraps": (SELECT | READ, 16, 0xFFFFFFFFFFFFFFF8),
    "into-the-low-rom": (SELECT | READ, 3, 0xF0000),
    "over-the-border-of-the-low-rom": (SELECT | READ, 4, 0xEFFFE),
    "out-of-the-low-rom": (SELECT | READ, 4, 0xFFFFE),
    "into-the-rom": (SELECT | READ, 3, 0xFFFF0100),
}
PLACES = (BUFFER, 0xEFFF8, 0xFFFF8, 0xFFFF0000, 0xFFFF0100, 64 * MIB - 8)


@pytest.mark.parametrize("script", [selector, dma_register], ids=lambda script: script.__name__)
def test_our_ports_behave_as_qemus(pair, accel, script):
    plan, qemu = pair(accel, 64 * MIB)
    with qemu as machine:
        assert list(script(Ours(plan))) == list(script(machine))


def test_our_transfers_do_what_qemus_do(pair, accel):
    """Each control word, what the next transfer then reads, and memory wherever one may have written."""
    plan, qemu = pair(accel, 64 * MIB)
    ours = Ours(plan)
    with qemu as theirs:
        for name, descriptor in TRANSFERS.items():
            seen = []
            for machine in (ours, theirs):
                for place in PLACES:
                    machine.write(place, b"\xaa" * 8)
                control = transfer(machine, *descriptor)
                memory = [machine.read(place, 8) for place in PLACES]
                seen.append((control, memory, transfer(machine, READ, 1), machine.read(BUFFER, 1)))
            assert seen[0] == seen[1], name
