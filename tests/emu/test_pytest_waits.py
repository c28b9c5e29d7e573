"""What is told of a machine that has waited in vain behind the handoff, where instructions are not counted."""

import re

import pytest
from pvhboot.emu.kit import replay
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
