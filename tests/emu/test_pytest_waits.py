"""What is told of a machine that has waited in vain behind the handoff, where instructions are not counted."""

import re

import pytest
from pvhboot.emu import machine as machine_module
from pvhboot.emu.kit import replay
from pvhboot.emu.machine import NotReached
from pytest_runs import section

pytest_plugins = ["pytester"]

IN_VAIN = {
    "a port": "run_until(port=0x80, value=0x41)",
    "a text": 'run_until(console="never printed")',
    "an address": "run_until(0x100000)",
    "a label": 'run_until("protected_mode")',
    "an exit": "run_until(port=0x81)",
}


@pytest.mark.parametrize("wait", IN_VAIN.values(), ids=IN_VAIN)
def test_the_end_is_found_again(run_pytest, wait):
    """Unicorn goes on from the access that has ended the run to the next jump."""
    result = run_pytest(f"""
        def test_it(pvh):
            machine = pvh(machine="microvm")
            machine.run_until_handoff()
            machine.{wait}
    """)
    told = section(result)
    (end,) = re.findall(r"^E +at (0x\w+), ", result.stdout.str(), re.M)
    (cost,) = re.findall(rf"^end: exit: .*; at {end}, guest_leave.*?, (after .*)$", told, re.M)
    assert re.fullmatch(
        r"after \d+ instructions up to the handoff \(from there they were not all counted\), \d+ device.*", cost
    )
    executed = told[told.index("the last 16 instructions:") :].splitlines()[1:17]
    assert re.search(r" out +dx, \w+ ", executed[-1])
    assert f"eip {int(end, 16) + 1:#x} " in told  # that of an `out dx, al` that is over


def test_a_port_that_was_waited_for_in_vain_tells_what_was_written_to_it(pvh):
    machine = pvh(machine="microvm")
    machine.run_until_handoff()
    with pytest.raises(NotReached, match=r"\n  nobody wrote to port 0x81$"):
        machine.run_until(port=0x81)
    machine = pvh(machine="microvm", dma=False)
    with pytest.raises(NotReached) as error:
        machine.run_until(port=0x510, value=0x4141)
    values = machine.io_log.of(range(0x510, 0x511), kind="out").values
    shown = " ".join(f"{value:#x}" for value in values[-8:])
    assert len(values) > 8
    assert str(error.value).endswith(f"\n  port 0x510 was written to {len(values)} times, at last: {shown}")


def test_what_is_amiss_at_the_handoff_is_not_said_to_be_why_a_wait_was_in_vain(run_pytest, qboot):
    told = section(
        run_pytest(f"""
        def test_it(pvh):
            machine = pvh(firmware={str(qboot)!r}, machine="microvm")
            machine.run_until_handoff()
            machine.run_until(port=0x81)
    """)
    )
    assert "\namiss at the handoff, which may have to do with it or not: " in told
    assert "likely cause" not in told


def test_a_firmware_that_never_hands_over_is_given_up(pvh, monkeypatch):
    """A jump to itself at the reset vector: a second would be over later than 5000 instructions."""
    monkeypatch.setattr(machine_module, "_FIRMWARE_MAX", 5000)
    machine = pvh(firmware=bytes(0xFFF0) + b"\xeb\xfe".ljust(16, b"\0"))
    with pytest.raises(NotReached, match="5000 instructions have been executed"):
        machine.run_until_handoff()


def test_behind_the_handoff_that_bound_is_gone(pvh, monkeypatch):
    monkeypatch.setattr(machine_module, "_FIRMWARE_MAX", 5000)
    machine = pvh(machine="microvm")
    machine.run_until(console="result ok")
    assert machine.instructions < 5000


def test_a_firmware_for_qemu_on_bare_is_asked_for_its_machine(pvh, qboot):
    handoff = pvh(firmware=qboot).run_until_handoff()
    with pytest.raises(AssertionError, match=r'the machine is bare, .* machine="microvm", say$'):
        handoff.check_abi()
    with pytest.raises(AssertionError) as error:
        pvh(firmware=qboot, machine="microvm").run_until_handoff().check_abi()
    assert "the machine is" not in str(error.value)


def test_a_limit_far_behind_shows_no_place_in_its_stead(run_pytest, monkeypatch):
    """inc eax, 300 times; then a jump to itself."""
    monkeypatch.setitem(replay.WATCHED, "unicorn", 600)
    told = section(
        run_pytest("""
        def test_it(pvh):
            machine = pvh(seconds=0.2)
            machine.run_until_handoff()
            machine.memory[0x100000:0x100800] = b"\\x40" * 0x7fe + b"\\xeb\\xfe"
            machine.run_until_exit()
    """)
    )
    assert "wall time are over" in told
    assert "the last instructions are not known: instruction 600, to which it was done again, is elsewhere" in told
    assert "inc eax" not in told


def test_a_checkpoint_that_cannot_be_is_told_at_the_line_of_the_test(run_pytest):
    result = run_pytest("""
        from contextlib import contextmanager
        from pvhboot.shim.errors import BootError

        def test_it(pvh):
            machine = pvh()
            machine.cpu.save = refuse
            with machine.checkpoint():
                pass

        def refuse():
            raise BootError("no checkpoints here")
    """)
    result.stdout.fnmatch_lines([">       with machine.checkpoint():*", "E   *BootError: no checkpoints here"])
    result.stdout.no_fnmatch_line("*contextlib.py*")
