"""Each device alone: values in, values out, no CPU."""

from datetime import UTC, datetime

import pytest
from pvhboot.emu.devices.cmos import Cmos
from pvhboot.emu.devices.debug_console import DebugConsole
from pvhboot.emu.devices.debug_exit import DebugExit
from pvhboot.emu.devices.i8042 import I8042, FastReset
from pvhboot.emu.devices.post import PostPort
from pvhboot.emu.devices.rom import KEPT, RomWriteTrap
from pvhboot.emu.devices.serial import Serial16550

MIB, GIB = 1 << 20, 1 << 30


def test_serial_prints_what_is_written_to_thr():
    sent = []
    uart = Serial16550(sent.append)
    uart.write(0, 1, 0x41)
    assert sent == [0x41]
    assert uart.read(5, 1) == 0x60


def test_serial_divisor_latch_takes_the_place_of_data_and_ier():
    sent = []
    uart = Serial16550(sent.append)
    uart.write(3, 1, 0x83)
    uart.write(0, 1, 0x01)
    uart.write(1, 1, 0x02)
    assert (uart.read(0, 1), uart.read(1, 1)) == (1, 2)
    uart.write(3, 1, 0x03)
    assert (uart.read(0, 1), uart.read(1, 1)) == (0, 0)
    assert sent == []


def test_serial_scratch_and_fifo_are_there_for_a_driver_that_probes():
    uart = Serial16550([].append)
    uart.write(7, 1, 0xA5)
    assert uart.read(7, 1) == 0xA5
    assert uart.read(2, 1) == 0x01
    uart.write(2, 1, 0x01)
    assert uart.read(2, 1) == 0xC1
    uart.write(1, 1, 0xFF)
    assert uart.read(1, 1) == 0x0F


@pytest.mark.parametrize(
    ("mcr", "msr"), [(0x10, 0x00), (0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80), (0x1F, 0xF0), (0, 0xB0)]
)
def test_serial_loops_the_modem_lines_back(mcr, msr):
    uart = Serial16550([].append)
    uart.write(4, 1, mcr)
    assert uart.read(6, 1) == msr


def test_serial_in_loop_back_prints_nothing():
    sent = []
    uart = Serial16550(sent.append)
    uart.write(4, 1, 0x10)
    uart.write(0, 1, 0x41)
    assert sent == []


def cmos_read(cmos, index, size=1):
    value = 0
    for at in range(size):
        cmos.write(0, 1, index + at)
        value |= cmos.read(1, 1) << 8 * at
    return value


def test_cmos_tells_the_time_in_bcd():
    cmos = Cmos(512 * MIB, 3 * GIB, datetime(2018, 12, 31, 23, 59, 58, tzinfo=UTC))
    assert [cmos_read(cmos, at) for at in (0, 2, 4, 7, 8, 9, 0x32)] == [0x58, 0x59, 0x23, 0x31, 0x12, 0x18, 0x20]
    assert cmos_read(cmos, 0x06) == 2  # a Monday; Sunday is 1
    assert cmos_read(cmos, 0x0B) & 0x06 == 0x02  # 24 hours, BCD
    assert cmos_read(cmos, 0x0D) == 0x80


@pytest.mark.parametrize(
    ("ram", "extended", "above_16m", "above_4g"),
    [(64 * MIB, 0xFC00, 768, 0), (16 * MIB, 0x3C00, 0, 0), (3 * GIB, 0xFFFF, 0xBF00, 0), (5 * GIB, 0xFFFF, 0xBF00, 0x8000)],
)
def test_cmos_tells_the_memory_sizes(ram, extended, above_16m, above_4g):
    cmos = Cmos(ram, 3 * GIB, datetime(2000, 1, 1, tzinfo=UTC))
    assert cmos_read(cmos, 0x15, 2) == 640
    assert cmos_read(cmos, 0x30, 2) == cmos_read(cmos, 0x17, 2) == extended
    assert cmos_read(cmos, 0x34, 2) == above_16m
    assert cmos_read(cmos, 0x5B, 3) == above_4g


def test_cmos_ignores_the_nmi_bit_and_keeps_what_is_written():
    cmos = Cmos(64 * MIB, 3 * GIB, datetime(2000, 1, 1, tzinfo=UTC))
    cmos.write(0, 1, 0x80 | 0x0F)
    cmos.write(1, 1, 0x0A)
    assert cmos_read(cmos, 0x0F) == 0x0A
    assert cmos.read(0, 1) == 0xFF


def test_debug_console_collects_and_says_that_it_is_there():
    out = bytearray()
    console = DebugConsole(out)
    console.write(0, 1, 0x68)
    assert (out, console.read(0, 1)) == (b"h", 0xE9)


def test_post_port_keeps_the_codes_in_order():
    codes = []
    port = PostPort(codes)
    assert port.read(0, 1) == 0xFF
    port.write(0, 1, 0x10)
    port.write(0, 1, 0x20)
    assert (codes, port.read(0, 1)) == ([0x10, 0x20], 0x20)


def test_stores_to_the_rom_are_kept_but_not_for_ever():
    trap = RomWriteTrap()
    for value in range(KEPT + 5):
        trap.write(0x10, 4, value)
    assert trap.stores[0] == (0x10, 4, 0)
    assert len(trap.stores) == KEPT


def test_debug_exit_leaves_with_the_value():
    values = []
    DebugExit(values.append).write(0, 1, 7)
    assert values == [7]


def test_resets_need_their_value():
    how = []
    controller, port92 = I8042(how.append), FastReset(how.append)
    controller.command_port.write(0, 1, 0xD1)
    port92.write(0, 1, 0x02)
    assert (how, controller.command_port.read(0, 1), port92.read(0, 1)) == ([], 0, 2)
    controller.command_port.write(0, 1, 0xFE)
    port92.write(0, 1, 0x03)
    assert len(how) == 2
