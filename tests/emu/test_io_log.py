"""What a test asks a log of accesses, and a device that is a trap."""

import pytest
from pvhboot.emu.bus import Access
from pvhboot.emu.kit.values import IoLog
from pvhboot.shim.errors import BootError

FIRST = Access("out", 0x510, 2, 0x19, "fw_cfg")
SECOND = Access("in", 0x511, 1, 0, "fw_cfg")
THIRD = Access("out", 0xCF8, 4, 0x80000000, "")
LOG = IoLog([FIRST, SECOND, THIRD], ["cmos", "fw_cfg"])

CASES = {
    "a device": (("fw_cfg",), None, [FIRST, SECOND]),
    "a port": ((0x511,), None, [SECOND]),
    "a range": ((range(0xCF8, 0xD00),), None, [THIRD]),
    "several": ((0x510, range(0xCF8, 0xD00)), None, [FIRST, THIRD]),
    "a kind": ((), "out", [FIRST, THIRD]),
    "a device and a kind": (("fw_cfg",), "out", [FIRST]),
    "nothing in particular": ((), None, [FIRST, SECOND, THIRD]),
    "a device that was left alone": (("cmos",), None, []),
}


@pytest.mark.parametrize(("where", "kind", "wanted"), CASES.values(), ids=CASES)
def test_some_accesses_and_all_others(where, kind, wanted):
    assert LOG.of(*where, kind=kind) == wanted
    assert LOG.but(*where, kind=kind) == [access for access in LOG if access not in wanted]
    assert isinstance(LOG.but(*where, kind=kind), IoLog)


def test_a_slice_is_a_log():
    assert isinstance(LOG[1:], IoLog)
    assert LOG[1:].but("fw_cfg") == [THIRD]
    assert LOG[::-1].values == [0x80000000, 0, 0x19]
    assert LOG[-1] is THIRD


@pytest.mark.parametrize("ask", [LOG.of, LOG.but, LOG[:1].but])
def test_a_device_that_the_board_does_not_have(ask):
    with pytest.raises(BootError, match="no device 'fwcfg' on this board; there is: cmos, fw_cfg"):
        ask("fwcfg")


class Trap:
    def read(self, offset, size):
        raise AssertionError(f"{size} bytes read at {offset}")

    def write(self, offset, size, value):
        raise AssertionError(f"{value:#x} ({size} bytes) written at {offset}")


def test_what_a_device_raises_is_raised_where_the_machine_is_driven(pvh, qboot, engine_name):
    ports = range(0xCF8, 0xD00)
    machine = pvh(engine=engine_name, firmware=qboot, machine="microvm", devices={ports: Trap()})
    with pytest.raises(AssertionError, match=r"^0x80000000 \(4 bytes\) written at 0$"):
        machine.run_until_handoff()
    pvh(engine=engine_name, machine="microvm", devices={ports: Trap()}).run_until_handoff()  # ours does not look there
