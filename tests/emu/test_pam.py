"""PAM: the shadow RAM of GuestMemory, and what a guest sees of it on each engine."""

import pytest
from pvhboot.emu.board import Board
from pvhboot.emu.devices.pam import Pam
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import EXIT
from pvhboot.emu.session import get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.memory import GuestMemory, ShadowPart
from pvhboot.loader.plan import make_plan
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import KIB, MIB, PC, Q35, Span
from pvhboot.shim.stock import default_guest

ROM = b"\x99" * (64 * KIB)
SHADOW = Span("shadow", 0xC0000, MIB)


def memory():
    return GuestMemory(
        [Span("low", 0, 0xA0000), Span("RAM", MIB, 2 * MIB)],
        ROM,
        low_rom=Span("low ROM", 0xF0000, MIB),
        blank_rom=Span("blank", 0xC0000, 0xE0000),
        shadow=SHADOW,
    )


def shape(guest):
    return [
        (region.span.start, region.span.end, region.readonly) for region in guest.regions if 0xA0000 <= region.span.start < MIB
    ]


CLOSED = [(0xC0000, 0xE0000, True), (0xF0000, MIB, True)]


def test_nobody_sees_the_shadow_ram_at_first():
    guest = memory()
    assert shape(guest) == CLOSED
    assert (guest.read(0xC0000, 1), guest.read(0xF0000, 1)) == (b"\0", b"\x99")
    with pytest.raises(BootError, match="no memory"):
        guest.read(0xE0000, 1)


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        ([(0xC0000, MIB, False)], [(0xC0000, MIB, False)]),
        ([(0xC4000, 0xC8000, True)], [(0xC0000, 0xC4000, True), (0xC4000, 0xC8000, True), (0xC8000, 0xE0000, True), CLOSED[1]]),
        ([(0xDC000, 0xE4000, False)], [(0xC0000, 0xDC000, True), (0xDC000, 0xE4000, False), CLOSED[1]]),
        ([(0xF0000, MIB, True), (0xE0000, 0xF0000, False)], [CLOSED[0], (0xE0000, 0xF0000, False), (0xF0000, MIB, True)]),
    ],
)
def test_parts_of_it_take_the_place_of_what_is_there(parts, shown):
    guest = memory()
    guest.show_shadow([ShadowPart(*part) for part in parts])
    assert shape(guest) == shown
    guest.show_shadow([])
    assert shape(guest) == CLOSED


def test_it_keeps_what_was_written_while_nobody_sees_it():
    guest = memory()
    guest.show_shadow([ShadowPart(0xE0000, MIB, False)])
    guest.view(0xEFFFE, 4)[:] = b"abcd"
    guest.show_shadow([])
    assert guest.read(0xF0000, 2) == b"\x99\x99"
    guest.show_shadow([ShadowPart(0xE0000, 0xF0000, True), ShadowPart(0xF0000, MIB, False)])
    assert guest.read(0xEFFFD, 6) == b"\0abcd\0"  # two regions, and one memory to a guest
    assert guest.read(0xFFFFF, 2) == b"\0\0"


def test_listeners_hear_of_a_new_map_and_of_nothing_else():
    guest, told = memory(), []
    guest.map_listeners.append(lambda: told.append(shape(guest)))
    guest.show_shadow([])
    assert told == []
    for _ in range(2):
        guest.show_shadow([ShadowPart(0xF0000, MIB, False)])
    assert told == [[CLOSED[0], (0xF0000, MIB, False)]]


def test_the_registers_show_their_pieces():
    guest = memory()
    pam = Pam(guest)
    pam.update(bytes((0x30, 0, 0, 0, 0, 0, 0)))
    assert shape(guest) == [CLOSED[0], (0xF0000, MIB, False)]
    pam.update(bytes((0x10, 0x33, 0x31, 0x02, 0, 0, 0x10)))  # 0x02: RAM to both, as QEMU has it
    assert shape(guest) == [
        (0xC0000, 0xC8000, False),
        (0xC8000, 0xCC000, True),
        (0xCC000, 0xD4000, False),
        (0xD4000, 0xE0000, True),
        (0xEC000, MIB, True),
    ]


# A guest in real mode, DS at F0000 and CS at the ROM below 4 GiB; what it loads goes to the debug console.
ORIGIN = 0x8000


def out32(port, value):
    return b"\x66\xb8" + value.to_bytes(4, "little") + b"\xba" + port.to_bytes(2, "little") + b"\x66\xef"


def out8(port, value):
    return b"\xb0" + bytes((value,)) + b"\xba" + port.to_bytes(2, "little") + b"\xee"


def store(offset, value, segment=b""):
    return segment + b"\xc6\x06" + offset.to_bytes(2, "little") + bytes((value,))


def load(offset, segment=b""):
    return segment + b"\xa0" + offset.to_bytes(2, "little") + b"\xba\x02\x04\xee"


HIGH = b"\x2e"  # cs:


def rom(code):
    image = bytearray(ROM)
    code = b"\xb8\x00\xf0\x8e\xd8" + code + out8(0x501, 0) + b"\xf4"  # ds = f000; leave
    image[ORIGIN : ORIGIN + len(code)] = code
    image[0xFFF0:0xFFF3] = b"\xe9" + ((ORIGIN - 0xFFF3) & 0xFFFF).to_bytes(2, "little")
    return bytes(image)


@pytest.mark.parametrize(("spec", "register"), [(PC, 0x59), (Q35, 0x90)], ids=["pc", "q35"])
def test_a_guest_sees_what_the_registers_say(engine_name, spec, register):
    def pam(bits):
        return out32(0xCF8, 0x80000000 | register & 0xFC) + out8(0xCFC + register % 4, bits << 4)

    steps = [
        (load(0x100), 0x99),
        (store(0x100, 0x11) + load(0x100), 0x99),  # ROM
        (store(0x101, 0x12) + load(0x101), 0x99),  # and again on the same page
        (store(0x100, 0x13, HIGH) + load(0x100, HIGH), 0x99),
        (pam(3) + load(0x100), 0x00),
        (store(0x100, 0x41) + load(0x100), 0x41),
        (load(0x100, HIGH), 0x99),
        (pam(1) + store(0x100, 0x42) + load(0x100), 0x41),  # RAM that cannot be written
        (pam(0) + load(0x100), 0x99),
        (store(0x100, 0x43) + load(0x100), 0x99),
        (pam(3) + load(0x100), 0x41),
        (store(0x100, 0x44) + load(0x100), 0x44),
    ]
    plan = make_plan(
        spec, rom(b"".join(code for code, _ in steps)), Kernel.from_bytes(default_guest(64), "guest"), memory=64 * MIB
    )
    board = Board(plan, plan.memory())
    run = get_engine(engine_name).run(board, Until(EXIT), Limits(seconds=30), lambda _handoff: None)
    assert run.stop.reason == EXIT, run.stop
    assert list(board.debug_console) == [wanted for _, wanted in steps]
    assert board.memory.read(0xF0100, 1) == b"\x44"
    dropped = [(access.address, access.value) for access in board.bus.log if access.kind == "write"]
    assert dropped == [(0xF0100, 0x11), (0xF0101, 0x12), (0xFFFF0100, 0x13), (0xF0100, 0x42), (0xF0100, 0x43)]
