"""The keyboard controller with nothing attached, as a driver probes it, and port 0xcf9. The resets: test_devices.py."""

import pytest
from pvhboot.emu.devices.i8042 import KeyboardController, ResetControl
from pvhboot.emu.devices.pci import ConfigPorts, PciBus

FULL, SYSTEM, UNLOCKED, TIMEOUT = 0x01, 0x04, 0x10, 0x40  # of the status
INTERRUPT = 0x01  # of the configuration


class Controller:
    def __init__(self):
        self.resets, self.level = [], False
        self.data = KeyboardController(self.resets.append, self.on_level)

    def on_level(self, level):
        self.level = level

    def command(self, value, *data):
        self.data.command_port.write(0, 1, value)
        for byte in data:
            self.data.write(0, 1, byte)

    @property
    def status(self):
        return self.data.command_port.read(0, 1)

    def read(self):
        return self.data.read(0, 1)


@pytest.mark.parametrize(
    ("command", "data", "answer"),
    [
        (0x20, (), SYSTEM),  # the configuration
        (0xAA, (), 0x55),
        (0xAB, (), 0x00),
        (0xA9, (), 0x02),
        (0xC0, (), 0x80),
        (0xD0, (), 0x03),
        (0xD2, (0x1C,), 0x1C),
        (0xD3, (0x5A,), 0x00),  # no second port echoes
    ],
)
def test_a_command_is_answered_once(command, data, answer):
    controller = Controller()
    assert controller.status == SYSTEM | UNLOCKED
    controller.command(command, *data)
    assert controller.status == SYSTEM | UNLOCKED | FULL
    assert controller.read() == answer
    assert controller.status == SYSTEM | UNLOCKED
    assert controller.read() == 0


@pytest.mark.parametrize("command", [(0xAD,), (0xAE,), (0xA7,), (0xA8,), (0xD1, 0xDF)])
def test_a_command_without_an_answer_leaves_the_buffer_empty(command):
    controller = Controller()
    controller.command(*command)
    assert not controller.status & FULL
    assert not controller.resets


@pytest.mark.parametrize("prefix", [(), (0xD4,)])
def test_of_a_device_that_is_not_there_it_says_that_nothing_answers(prefix):
    controller = Controller()
    for command in prefix:
        controller.command(command)
    controller.data.write(0, 1, 0xF2)
    assert controller.status == SYSTEM | UNLOCKED | FULL | TIMEOUT
    assert controller.read() == 0xFE
    assert controller.status == SYSTEM | UNLOCKED


def test_an_answer_interrupts_if_the_configuration_says_so():
    controller = Controller()
    controller.command(0xAA)
    assert not controller.level
    controller.read()
    controller.command(0x60, SYSTEM | INTERRUPT)
    controller.command(0x20)
    assert controller.level
    assert (controller.read(), controller.level) == (SYSTEM | INTERRUPT, False)


def test_the_pulse_resets():
    controller = Controller()
    controller.command(0xFE)
    assert controller.resets == ["the keyboard controller (0xfe to port 0x64)"]


@pytest.mark.parametrize(
    ("values", "resets"), [((2, 6), 1), ((2, 0x0E), 1), ((6,), 1), ((2,), 0), ((8,), 0), ((6, 6), 1), ((6, 2, 6), 2)]
)
@pytest.mark.parametrize("within_pci", [False, True])
def test_reset_control_resets_when_its_bit_rises(values, resets, within_pci):
    seen = []
    device = ResetControl(seen.append)
    port = ConfigPorts(PciBus({}), device).address_port if within_pci else device
    for value in values:
        port.write(1 if within_pci else 0, 1, value)
        assert port.read(1 if within_pci else 0, 1) == value
    assert seen == ["port 0xcf9"] * resets


def test_reset_control_leaves_the_pci_address_alone():
    port = ConfigPorts(PciBus({}), ResetControl(list)).address_port
    port.write(0, 4, 0x80001234)
    port.write(1, 1, 2)
    assert port.read(0, 4) == 0x80001234
