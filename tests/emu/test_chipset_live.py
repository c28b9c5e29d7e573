"""The board's chipset against a live QEMU's: every access to configuration space, PAM, ECAM, power management and the interrupt
controllers gives the same, and so does memory. The machine never runs (-S): the accesses come over qtest."""

import random

import pytest
from host import qemu_problem
from pvhboot.emu.board import Board
from pvhboot.emu.engines.qemu.engine import QemuEngine
from pvhboot.emu.engines.qemu.qtest import QtestMachine
from pvhboot.loader.fw_cfg import fw_cfg_items
from pvhboot.loader.image import BytesImage
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import GIB, KIB, MIB, PC, Q35
from pvhboot.shim.stock import default_guest

ADDRESS, DATA = 0xCF8, 0xCFC
MEMORY = 512 * MIB  # as in the recording: the i440FX has registers for it
ROM = bytes(at * 13 + (at >> 8) & 0xFF for at in range(128 * KIB))
PAM = {PC: 0x59, Q35: 0x90}
POWER = {PC: (1, 3, 0x40, 0x80, 0x01), Q35: (31, 0, 0x40, 0x44, 0x80)}  # slot, function, base, enabling register, bit
# Registers with bits that lock or clear others, SMRAM and its like: the board keeps what is written (emu/devices/pci.py).
LOCKING = {PC: {(0, 0): {0x70, 0x74}}, Q35: {(0, 0): {0x50, 0x9C}, (31, 0): {0xA0, 0xF0}, (31, 2): {0x80, 0x84, 0xA8}}}
PRESENT = {PC: [(0, 0), (1, 0), (1, 1), (1, 3)], Q35: [(0, 0), (31, 0), (31, 2), (31, 3)]}
ABSENT = [(2, 0), (5, 7), (1, 2)]


class Ours:
    """A board with the same face as QtestMachine."""

    def __init__(self, spec):
        kernel = Kernel.from_bytes(default_guest(64), "guest")
        plan = make_plan(spec, ROM, kernel, memory=MEMORY)
        self.memory = plan.memory()
        self._board = Board(plan, self.memory)  # its devices live as long as it does
        self._bus = self._board.bus
        self.port_read, self.port_write = self._bus.port_read, self._bus.port_write

    def read(self, paddr, size):
        try:
            return self.memory.read(paddr, size)
        except BootError:
            return self._bus.memory_read(paddr, size).to_bytes(size, "little")

    def write(self, paddr, data):
        try:
            self.memory.view(paddr, len(data))[:] = data
        except BootError:
            self._bus.memory_write(paddr, len(data), int.from_bytes(data, "little"))


@pytest.fixture(params=[PC, Q35], ids=lambda spec: spec.name)
def spec(request):
    if problem := qemu_problem():
        pytest.skip(problem)
    return request.param


@pytest.fixture
def pair(spec, tmp_path):
    """Ours and QEMU's, both at reset, with the same ROM."""
    rom = tmp_path / "rom"
    rom.write_bytes(ROM)
    with QtestMachine(spec, MEMORY, 1, "tcg", ["-bios", str(rom)]) as theirs:
        yield Ours(spec), theirs


def same(pair, script):
    ours, theirs = (list(script(machine)) for machine in pair)
    assert len(ours) == len(theirs)
    assert ours == theirs, next((one, other) for one, other in zip(ours, theirs, strict=True) if one != other)


def address(slot, function, register, bus=0):
    return 1 << 31 | bus << 16 | slot << 11 | function << 8 | register & ~3


def config_read(machine, slot, function, register, size=4):
    machine.port_write(ADDRESS, 4, address(slot, function, register))
    return machine.port_read(DATA + register % 4, size)


def config_write(machine, slot, function, register, size, value):
    machine.port_write(ADDRESS, 4, address(slot, function, register))
    machine.port_write(DATA + register % 4, size, value)


def test_every_register_is_at_reset_as_qemus(pair, spec):
    def script(machine):
        for slot, function in PRESENT[spec] + ABSENT:
            for register in range(0, 256, 4):
                yield hex(slot), function, hex(register), hex(config_read(machine, slot, function, register))

    same(pair, script)


def test_no_other_function_is_there(pair):
    def script(machine):
        for slot in range(32):
            for function in range(8):
                yield slot, function, config_read(machine, slot, function, 0)

    same(pair, script)


def test_accesses_of_every_width_and_place_do_the_same(pair, spec):
    """Stores to registers that keep what they are given, each read back in another width."""

    def script(machine):
        chance = random.Random(1)
        for number in range(600):
            slot, function = chance.choice(PRESENT[spec] + ABSENT)
            size = chance.choice((1, 2, 4))
            register = chance.randrange(0, 256, size)
            if register & ~3 in LOCKING[spec].get((slot, function), ()):
                continue
            config_write(machine, slot, function, register, size, chance.randrange(1 << 8 * size))
            yield number, slot, function, hex(register), size, hex(config_read(machine, slot, function, register & ~3))
            size = chance.choice((1, 2, 4))
            register = register & ~3 | chance.randrange(0, 4, size)
            yield number, hex(register), size, hex(config_read(machine, slot, function, register, size))

    same(pair, script)


def test_the_address_register_does_the_same(pair):
    def script(machine):
        for size, value in ((4, address(0, 0, 0)), (1, 0x77), (2, 0x8000), (4, 0x12345678), (4, address(0, 0, 8))):
            machine.port_write(ADDRESS, size, value)
            yield hex(machine.port_read(ADDRESS, 4)), hex(machine.port_read(DATA, 4))
        for bus, low_bits in ((1, 0), (255, 0), (0, 0x7F000000)):
            machine.port_write(ADDRESS, 4, address(0, 0, 0, bus) | low_bits)
            yield hex(machine.port_read(DATA, 4)), hex(machine.port_read(DATA + 2, 2)), hex(machine.port_read(DATA + 3, 1))
        machine.port_write(ADDRESS, 4, address(0, 0, 0) & ~(1 << 31))
        yield machine.port_read(DATA, 4)

    same(pair, script)


PROBES = (*range(0xC0010, 0xF0000, 0x4000), 0xC0000, 0xC3FFF, 0xC4000, 0xEFFFF, 0xF0000, 0xF8000, 0xFFFFF)


def test_pam_shows_the_same_memory_and_takes_the_same_stores(pair, spec):
    """Every combination of bits once for each piece, and then at random; marks are written through the map as it is."""

    def script(machine):
        chance = random.Random(2)
        every = range(PAM[spec], PAM[spec] + 7)
        steps = [(every, bits << 4 | bits) for bits in range(4)]
        steps += [((chance.choice(every),), chance.randrange(256)) for _ in range(40)]
        mark = 0
        for registers, value in steps:
            for register in registers:
                config_write(machine, 0, 0, register, 1, value)
                yield hex(register), value, config_read(machine, 0, 0, register, 1)
            for probe in PROBES:
                before = machine.read(probe, 1)
                mark = mark * 5 + 1 & 0xFF
                machine.write(probe, bytes((mark,)))
                yield value, hex(probe), before, machine.read(probe, 1)
            yield machine.read(0xE0000, 16), machine.read(0xFFFE0000, 16)

    same(pair, script)


def test_a_dma_sees_what_pam_shows(pair, spec):
    """fw_cfg's signature into the F segment: refused by ROM, taken by RAM."""

    def script(machine):
        for bits in (0, 3, 1, 2):
            config_write(machine, 0, 0, PAM[spec], 1, bits << 4)
            machine.write(0x1000, (0x0A).to_bytes(4, "big") + (4).to_bytes(4, "big") + (0xF1000).to_bytes(8, "big"))
            machine.port_write(0x518, 4, 0x00100000)
            yield bits, machine.read(0x1000, 4), machine.read(0xF1000, 4)

    same(pair, script)


def test_the_ports_of_power_management_do_the_same(pair, spec):
    """In their own widths: QEMU loses the upper half of a register that is accessed by byte."""
    slot, function, base, control, bit = POWER[spec]

    def registers(machine, at):
        for offset, size in ((0, 2), (2, 2), (4, 2), (0, 4), (6, 1)):
            yield hex(at + offset), size, hex(machine.port_read(at + offset, size))
        yield machine.port_read(at + 8, 4) >> 24

    def script(machine):
        yield from registers(machine, 0x600)
        for at in (0x601, 0xB001, 0x6C1):
            config_write(machine, slot, function, base, 4, at)
            yield from registers(machine, at & ~1)
            config_write(machine, slot, function, control, 1, bit)
            yield from registers(machine, at & ~1)
            for offset, size, value in ((2, 2, 0x0321), (4, 2, 0x1C00), (0, 2, 0xFFFE), (0, 2, 0xFFFF), (0, 4, 0x00200001)):
                machine.port_write((at & ~1) + offset, size, value)
                yield from registers(machine, at & ~1)
            for command in (0xF1, 0xF0, 0x02, 0x03, 0xF1, 0x02, 0x77):
                machine.port_write(0xB2, 1, command)
                yield machine.port_read(0xB2, 1), machine.port_read((at & ~1) + 4, 2)
            machine.port_write(0xB3, 1, 0x5A)
            yield machine.port_read(0xB3, 1)
            config_write(machine, slot, function, control, 1, 0)
            yield from registers(machine, at & ~1)

    same(pair, script)


def test_the_interrupt_controllers_keep_the_same(pair):
    def script(machine):
        for port, value in (
            (0x21, 0xA5), (0xA1, 0x5A), (0x20, 0x11), (0x21, 0x08), (0x21, 0x04), (0x21, 0x01), (0x21, 0xFB), (0xA0, 0x13),
            (0xA1, 0x70), (0xA1, 0x01), (0xA1, 0x77), (0x20, 0x20), (0xA0, 0x12), (0xA1, 0x70), (0xA1, 0x44), (0x4D0, 0xFF),
            (0x4D1, 0xFF), (0x4D1, 0x0C),
        ):  # fmt: skip
            machine.port_write(port, 1, value)
            yield hex(port), [machine.port_read(at, 1) for at in (0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1)]
        machine.port_write(0x4D0, 2, 0x0C08)
        yield machine.port_read(0x4D0, 2)

    same(pair, script)


@pytest.mark.parametrize("spec", [Q35], indirect=True)
def test_ecam_does_the_same(pair, spec):
    def script(machine):
        for base, length in ((0xB0000000, 0), (0xE0000000, 0), (0xC0000000, 1), (0xD0000000, 2)):
            config_write(machine, 0, 0, 0x64, 4, 0)
            config_write(machine, 0, 0, 0x60, 4, base | length << 1 | 1)
            for slot, function in PRESENT[spec]:
                at = base | slot << 15 | function << 12
                for register, size in ((0, 4), (2, 2), (8, 4), (0x0E, 1), (0x3C, 4), (0x100, 4), (0xFFC, 4)):
                    yield hex(base), slot, function, hex(register), machine.read(at + register, size)
                machine.write(at + 0x3C, bytes((base >> 24,)))
                yield config_read(machine, slot, function, 0x3C)
            yield machine.read(base | 5 << 15, 4), machine.read(base | 1 << 20, 4)

    same(pair, script)


def item_by_port(machine, key, size):
    machine.port_write(0x510, 2, key)
    return bytes(machine.port_read(0x511, 1) for _ in range(size))


@pytest.mark.parametrize(
    "memory", [128 * MIB, 2 * GIB, 0xB0000000 - MIB, 0xB0000000, 3 * GIB, 0xE0000000 - MIB, 0xE0000000, 5 * GIB]
)
def test_the_plan_has_ram_and_initrd_where_qemu_has_them(spec, memory, tmp_path):
    kernel, initrd = tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(default_guest(64))
    initrd.write_bytes(bytes(5000))
    host = QemuEngine().host_reserved(spec, memory)
    plan = make_plan(
        spec, ROM, Kernel.open(str(kernel)), memory=memory, modules=[Module(str(initrd))], cmdline="x", host_reserved=host
    )
    items = {key: item.read(0, item.size) for key, item in fw_cfg_items(plan).items() if isinstance(item, BytesImage)}
    (e820,) = (data for key, data in items.items() if key >= 0x20 and key < 0x4000)
    with QtestMachine(spec, memory, 1, "tcg", ["-kernel", str(kernel), "-initrd", str(initrd), "-append", "x"]) as machine:
        for key in (0x03, 0x05, 0x07, 0x08, 0x0A, 0x0B, 0x0F, 0x10, 0x14, 0x15, 0x8002):
            assert item_by_port(machine, key, len(items[key])) == items[key], hex(key)
        directory = item_by_port(machine, 0x19, 4 + 64 * 20)
        at = directory.index(b"etc/e820\0") - 8
        assert int.from_bytes(directory[at : at + 4], "big") == len(e820)
        assert item_by_port(machine, int.from_bytes(directory[at + 4 : at + 6], "big"), len(e820)) == e820
