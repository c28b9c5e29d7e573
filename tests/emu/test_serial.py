"""The 16550 by its datasheet: what it receives, when it interrupts, and what makes it stop. How it prints: test_devices.py."""

import pytest
from pvhboot.emu.devices.serial import Serial16550
from pvhboot.shim.abi.devices import (
    UART_FCR,
    UART_FCR_CLEAR_RX,
    UART_FCR_ENABLE,
    UART_IER,
    UART_IIR,
    UART_LSR,
    UART_MCR,
    UART_RBR,
    UART_THR,
)

OUT2, LOOP, RTS = 0x08, 0x10, 0x02
RECEIVED, THRE, LINE = 0x01, 0x02, 0x04  # of IER
NONE, EMPTY, DATA, STATUS, TIMEOUT, FIFOS = 0x01, 0x02, 0x04, 0x06, 0x0C, 0xC0  # of IIR
TRIGGER_8 = 0x80


class Uart:
    """One with what it sent, and each change of its line."""

    def __init__(self, enabled=0, *, fcr=0, mcr=OUT2):
        self.sent, self.levels = bytearray(), []
        self.device = Serial16550(self.sent.append, self.on_level)
        self.write(UART_FCR, fcr)
        self.write(UART_MCR, mcr)
        self.write(UART_IER, enabled)

    def on_level(self, level):
        if level != (bool(self.levels) and self.levels[-1]):
            self.levels.append(level)

    @property
    def raised(self):
        return bool(self.levels) and self.levels[-1]

    def read(self, offset):
        return self.device.read(offset, 1)

    def write(self, offset, value):
        self.device.write(offset, 1, value)


def test_what_is_typed_is_read_in_its_order_and_nothing_is_lost():
    uart = Uart()
    uart.device.receive(bytes(range(1, 101)))
    seen = bytearray()
    while uart.read(UART_LSR) & 1:
        seen.append(uart.read(UART_RBR))
    assert seen == bytes(range(1, 101))
    assert uart.device.waiting == 0
    assert uart.read(UART_RBR) == 0


@pytest.mark.parametrize(
    ("fcr", "count", "told"),
    [
        (0, 1, DATA),
        (UART_FCR_ENABLE, 1, FIFOS | DATA),
        (UART_FCR_ENABLE | TRIGGER_8, 7, FIFOS | TIMEOUT),
        (UART_FCR_ENABLE | TRIGGER_8, 8, FIFOS | DATA),
    ],
)
def test_bytes_received_interrupt_until_they_are_read(fcr, count, told):
    uart = Uart(RECEIVED, fcr=fcr)
    assert uart.levels == []
    uart.device.receive(b"x" * count)
    assert uart.raised
    for _ in range(count):
        assert uart.read(UART_IIR) in (told, FIFOS | TIMEOUT)
        uart.read(UART_RBR)
    assert uart.levels == [True, False]
    assert uart.read(UART_IIR) == told & FIFOS | NONE


@pytest.mark.parametrize("cleared_by", ["IIR", "THR"])
def test_an_empty_transmitter_interrupts_once(cleared_by):
    uart = Uart(THRE)
    assert uart.levels == [True]  # as soon as it is switched on
    if cleared_by == "IIR":
        assert uart.read(UART_IIR) == EMPTY
        assert (uart.read(UART_IIR), uart.levels) == (NONE, [True, False])
    else:
        uart.write(UART_THR, ord("a"))
        assert (uart.sent, uart.levels) == (b"a", [True, False, True])  # an edge for each byte


def test_the_line_status_goes_before_data_and_data_before_the_transmitter():
    uart = Uart(RECEIVED | THRE | LINE, mcr=LOOP)
    for byte in b"ab":
        uart.write(UART_THR, byte)
    assert (uart.read(UART_IIR), uart.read(UART_LSR)) == (STATUS, 0x63)
    assert (uart.read(UART_IIR), uart.read(UART_LSR), uart.read(UART_RBR)) == (DATA, 0x61, ord("b"))  # a was overrun
    assert (uart.read(UART_IIR), uart.read(UART_IIR)) == (EMPTY, NONE)


def test_looped_back_it_receives_what_it_sends_and_its_line_is_off():
    uart = Uart(RECEIVED, fcr=UART_FCR_ENABLE, mcr=OUT2 | LOOP)
    for byte in range(17):
        uart.write(UART_THR, byte)
    assert (uart.sent, uart.levels) == (b"", [])
    assert uart.read(UART_LSR) & 2  # the 17th found no room
    assert [uart.read(UART_RBR) for _ in range(16)] == list(range(16))


def test_without_out2_no_interrupt_comes_through():
    uart = Uart(RECEIVED, mcr=0)
    uart.device.receive(b"x")
    assert (uart.levels, uart.read(UART_IIR)) == ([], DATA)
    uart.write(UART_MCR, OUT2)
    assert uart.raised


@pytest.mark.parametrize(("fcr", "left"), [(UART_FCR_ENABLE | UART_FCR_CLEAR_RX, 4), (0, 4), (UART_FCR_ENABLE, 20)])
def test_a_cleared_fifo_loses_what_was_in_it_but_not_what_is_still_on_the_wire(fcr, left):
    uart = Uart(fcr=UART_FCR_ENABLE)
    uart.device.receive(b"x" * 20)
    uart.write(UART_FCR, fcr)
    assert uart.device.waiting == left


def test_a_wire_with_rts_waits_for_it():
    uart = Uart()
    uart.device.waits_for_rts = True
    uart.device.receive(b"x")
    assert not uart.read(UART_LSR) & 1
    uart.write(UART_MCR, RTS)
    assert uart.read(UART_LSR) & 1


@pytest.mark.parametrize(("register", "bits"), [(UART_IER, 0x0F), (UART_MCR, 0x1F)])
def test_bits_that_are_not_there_read_as_0(register, bits):
    """By which drivers tell this chip from those that came after it."""
    uart = Uart()
    uart.write(register, 0xFF)
    assert uart.read(register) == bits
