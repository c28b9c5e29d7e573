"""The firmware of the PCs on a board: what it programs in the chipset, what it puts in front of 1 MiB, and what a host may say
of that memory. (What an operating system makes of it, the tests in a plain QEMU show.)"""

import struct
from typing import NamedTuple

import pytest
from mp import find_mp_table, intx
from pvhboot.emu.board import Board
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import HALT, HANDOFF
from pvhboot.emu.session import get_engine
from pvhboot.emu.tables import read_tables
from pvhboot.loader.fw_cfg import FileContents, fw_cfg_items, with_directory
from pvhboot.loader.image import BytesImage
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.loader.recording import default_recording
from pvhboot.shim.abi.firmware import PANICS
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import MIB, PC, Q35, UNIVERSAL
from pvhboot.shim.stock import default_blob, default_guest

ANCHOR, TABLES = b"etc/smbios/smbios-anchor", b"etc/smbios/smbios-tables"
NB_CPUS = 0x05
FIRMWARES = [(PC, PC), (Q35, Q35), (PC, UNIVERSAL), (Q35, UNIVERSAL)]
EACH = pytest.mark.parametrize(("spec", "firmware"), FIRMWARES, ids=lambda spec: spec.name)


class Seen(NamedTuple):
    """How a run ended, memory below 1 MiB at the handoff, and what start_info told."""

    board: Board
    stop: object
    low: bytes
    memmap: list
    rsdp: int


def run(spec, *, blob=None, without=(), files=None, e820=None, numbers=None, engine="unicorn"):
    """Boots the guest with the files of the machine's recording: but those `without`, and with `files`."""
    kernel = Kernel.from_bytes(default_guest(64), "guest")
    plan = make_plan(spec, (blob or default_blob(spec)).data, kernel, memory=64 * MIB, cmdline="x")
    contents = {name: FileContents(file) for name, file in default_recording(spec).files.items() if name not in without}
    contents |= {name: BytesImage(data) for name, data in (files or {}).items()}
    contents[b"etc/e820"] = BytesImage(b"".join(struct.pack("<QQI", *entry) for entry in e820 or [(0, 64 * MIB, 1)]))
    items = {**fw_cfg_items(plan), **with_directory(contents)}
    items |= {key: BytesImage(struct.pack("<H", number)) for key, number in (numbers or {}).items()}
    board = Board(plan, plan.memory(), fw_cfg_items=items)
    seen = []

    def on_handoff(handoff):
        tables = read_tables(handoff)
        low = b"".join(
            bytes(size) if start == 0xA0000 else handoff.memory.read(start, size)
            for start, size in ((0, 0xA0000), (0xA0000, 0x20000), (0xC0000, 0x40000))
        )
        seen.extend([low, [tuple(entry)[:3] for entry in tables.memmap], tables.start_info.rsdp_paddr])

    stop = get_engine(engine).run(board, Until(HANDOFF), Limits(seconds=20.0), on_handoff).stop
    return Seen(board, stop, *(seen or (b"", [], 0)))


def config(board, slot, function, register, size):
    """A register of configuration space, as the firmware has left it."""
    board.bus.port_write(0xCF8, 4, 1 << 31 | slot << 11 | function << 8 | register & ~3)
    return board.bus.port_read(0xCFC + register % 4, size)


# (slot, function, register, size): value.
PROGRAMMED = {
    PC: {
        (1, 3, 0x40, 4): 0x601,
        (1, 3, 0x80, 1): 0x01,
        (0, 0, 0x59, 1): 0x30,
        **{(0, 0, register, 1): 0x33 for register in range(0x5A, 0x60)},
    },
    Q35: {
        (31, 0, 0x40, 4): 0x601,
        (31, 0, 0x44, 1): 0x80,
        (0, 0, 0x60, 4): 0xB0000001,
        (0, 0, 0x64, 4): 0,
        (0, 0, 0x90, 1): 0x30,
        **{(0, 0, register, 1): 0x33 for register in range(0x91, 0x97)},
    },
}


@EACH
def test_the_chipset_is_programmed(engine_name, spec, firmware):
    seen = run(spec, blob=default_blob(firmware), engine=engine_name)
    assert seen.stop.reason == HANDOFF
    assert {place: config(seen.board, *place) for place in PROGRAMMED[spec]} == PROGRAMMED[spec]


@EACH
def test_and_before_the_first_look_at_a_file(spec, firmware):
    """QEMU makes its ACPI tables of what the registers hold by then."""
    log = run(spec, blob=default_blob(firmware)).board.bus.log
    first = next(at for at, one in enumerate(log) if one.device == "fw_cfg-dma" and one.kind == "out")
    assert max(at for at, one in enumerate(log) if one.device == "pci-config" and one.kind == "out") < first


# SMBIOS: DSP0134, 5.2.1 and 5.2.2, as QEMU leaves them: without address and checksum.


def anchor_21(size, structures=9):
    return struct.pack("<4s4BHB5s5sBHIHB", b"_SM_", 0, 31, 2, 8, 0xAB, 0, bytes(5), b"_DMI_", 0, size, 0, structures, 0x28)


def anchor_30(size):
    return struct.pack("<5s7BIQ", b"_SM3_", 0, 24, 3, 0, 0, 1, 0, size, 0x1122334455667788)


def smbios(low):
    """Where the anchors lie, on paragraphs of the F segment."""
    return [at for at in range(0xF0000, 0x100000, 16) if low[at : at + 3] == b"_SM"]


SIZES = (1, 15, 16, 17, 300, 4096, 0x8000)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make_anchor", [anchor_21, anchor_30])
@pytest.mark.parametrize("spec", [PC, Q35], ids=lambda spec: spec.name)
def test_smbios_is_where_an_operating_system_looks_for_it(spec, make_anchor, size):
    tables = bytes(at * 7 % 251 + 1 for at in range(size))
    given = make_anchor(size)
    seen = run(spec, files={ANCHOR: given, TABLES: tables})
    (at,) = smbios(seen.low)
    anchor = seen.low[at : at + len(given)]
    place, width, checksums = (24, 4, (4, 21)) if make_anchor is anchor_21 else (16, 8, (5,))
    address = int.from_bytes(anchor[place : place + width], "little")
    assert 0xF0000 <= address <= 0x100000 - size
    assert seen.low[address : address + size] == tables
    assert sum(anchor) % 256 == 0
    if make_anchor is anchor_21:
        assert sum(anchor[16:]) % 256 == 0
    left = bytearray(anchor)
    left[place : place + width] = given[place : place + width]
    for checksum in checksums:
        left[checksum] = 0
    assert left == given, "and nothing else is changed"


NO_SMBIOS = {
    "no-tables": ((TABLES,), {}),
    "no-anchor": ((ANCHOR,), {}),
    "neither": ((TABLES, ANCHOR), {}),
    "tables-empty": ((), {TABLES: b""}),
    "tables-as-large-as-the-segment": ((), {TABLES: bytes(0x10000)}),
    "tables-larger": ((), {TABLES: bytes(0x10001)}),
    "anchor-empty": ((), {ANCHOR: b""}),
    "anchor-too-short": ((), {ANCHOR: anchor_30(1)[:23]}),
    "anchor-larger-than-the-segment": ((), {ANCHOR: anchor_30(1).ljust(0x10000, b"\0"), TABLES: b"x"}),
}


@pytest.mark.parametrize(("without", "files"), NO_SMBIOS.values(), ids=NO_SMBIOS)
@pytest.mark.parametrize("spec", [PC, Q35], ids=lambda spec: spec.name)
def test_without_smbios_it_boots(spec, without, files):
    seen = run(spec, without=without, files=files)
    assert (seen.stop.reason, seen.board.debug_console) == (HANDOFF, b"")
    assert not [at for at in smbios(seen.low) if sum(seen.low[at : at + seen.low[at + 5]]) % 256 == 0]
    assert seen.rsdp


def test_an_unknown_anchor_is_passed_over():
    seen = run(PC, files={ANCHOR: b"_SX_" + bytes(27), TABLES: b"x"})
    assert (seen.stop.reason, smbios(seen.low)) == (HANDOFF, [])


# Without ACPI: PCI's interrupts, and the MP table. The board has one CPU; others answer as what is patched in here says.

ACPI_FILES = (b"etc/table-loader", b"etc/acpi/rsdp", b"etc/acpi/tables")


@EACH
def test_pci_interrupts_are_routed_without_acpi(spec, firmware):
    seen = run(spec, blob=default_blob(firmware), without=ACPI_FILES)
    assert (seen.stop.reason, seen.rsdp) == (HANDOFF, 0)
    board = seen.board
    assert (board.bus.port_read(0x4D0, 1), board.bus.port_read(0x4D1, 1)) == (0, 0x0C)
    bridge, registers = ((1, 0), (0x60,)) if spec is PC else ((31, 0), (0x60, 0x68))
    assert {config(board, *bridge, register, 4) for register in registers} == {0x0B0B0A0A}
    routed = 0
    for each in default_recording(spec).functions:
        line, pin = config(board, each.slot, each.function, 0x3C, 2).to_bytes(2, "little")
        assert pin == each.config[0x3D]
        if pin:
            pirq = (each.slot + pin - 2) % 4 if spec is PC else pin - 1  # all that q35 has here are its own
            assert line == (10, 10, 11, 11)[pirq % 4]
            routed += 1
        else:
            assert line == each.config[0x3C]
    assert routed == (1 if spec is PC else 2)


def answering(ids, count):
    """The universal firmware, in which processors with these APIC ids have answered, and so many were counted."""
    text = asm_source("cpus.s")
    old = "cpus_found:\n"
    assert text.count(old) == 1
    lines = [f"    mov byte ptr [CPU_PRESENT + {number}], 1" for number in ids]
    patched = text.replace(old, "\n".join([old[:-1], *lines, f"    mov dword ptr [CPU_COUNT], {count}", ""]))
    return build(UNIVERSAL, sources={"cpus.s": patched})


CPUS = {"one": [0], "two": [0, 1], "gaps": [0, 1, 2, 4, 5, 6], "most": list(range(255))}


@pytest.mark.parametrize("ids", CPUS.values(), ids=CPUS)
@pytest.mark.parametrize("spec", [PC, Q35], ids=lambda spec: spec.name)
def test_the_mp_table_of_a_pc(spec, ids):
    seen = run(spec, blob=answering(ids, len(ids)), without=ACPI_FILES)
    assert seen.stop.reason == HANDOFF
    table = find_mp_table(seen.low)
    assert 0xF0000 <= table.pointer < table.paddr < table.end <= 0x100000
    assert [processor.apic_id for processor in table.processors] == ids
    assert {it.irq: it.pin for it in table.interrupts if it.bus == "PCI"} == {
        slot << 2 | pin: intx(spec.name, slot, pin) for slot in range(32) for pin in range(4)
    }


@pytest.mark.parametrize(("ids", "count"), [([0, 1, 2, 3], 2), ([0, 1], 4)], ids=["late", "twice-the-same-id"])
def test_the_mp_table_holds_together_whoever_answers(ids, count):
    """One that answers after the count, or two with the same 8 bits of their ids: as many entries as the head says, and no
    byte outside of what was taken for the table."""
    seen = run(PC, blob=answering(ids, count), without=ACPI_FILES)
    table = find_mp_table(seen.low)  # fails where number, length and entries do not agree
    assert table.processors
    (anchor,) = smbios(seen.low)
    assert sum(seen.low[anchor : anchor + 31]) % 256 == 0
    assert table.end <= anchor


# What the host says of memory in front of 1 MiB, where the firmware has its own.

BELOW = {
    "in-the-hole": (0xC0000, 0x1000),
    "the-video-memory": (0xA0000, 0x20000),
    "where-the-tables-go": (0xEF000, 0x1000),
    "over-the-low-rom": (0xF8000, 0x1000),
    "over-the-ram": (0x9F000, 0x1000),
}


@pytest.mark.parametrize(("start", "size"), BELOW.values(), ids=BELOW)
@pytest.mark.parametrize("kind", [1, 2])
@EACH
def test_a_range_of_the_host_below_1_mib_is_refused(spec, firmware, start, size, kind):
    seen = run(spec, blob=default_blob(firmware), e820=[(0, 64 * MIB, 1), (start, size, kind)])
    assert seen.memmap == []
    assert seen.stop.reason == HALT
    assert seen.board.post_codes == [panic.code for panic in PANICS if panic.name == "E820_OVERLAP"]
