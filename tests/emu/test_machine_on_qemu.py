"""Machine on the engine qemu: what can be done there, and what cannot."""

import os
import signal
import threading

import pytest
from pvhboot.emu.machine import NotReached
from pvhboot.shim.abi.pvh import XEN_HVM_START_MAGIC_VALUE
from pvhboot.shim.errors import BootError


@pytest.mark.usefixtures("plain_qemu")
def test_a_machine_on_qemu(pvh):
    machine = pvh(engine="qemu", machine="microvm", memory="64M", append="quiet")
    handoff = machine.run_until_handoff()
    assert machine.run_until_handoff() is handoff
    assert machine.memory.number(handoff.registers["ebx"]) == XEN_HVM_START_MAGIC_VALUE
    assert handoff == pvh(machine="microvm", memory="64M", append="quiet").run_until_handoff()
    machine.run_until(console="result ok")
    assert "check magic ok" in machine.console
    assert machine.run_until_exit() == 0
    with pytest.raises(NotReached, match="'no such text' on the console was not reached: exit"):
        machine.run_until(console="no such text")


class _OverError(Exception):
    """What a signal's handler raises, as that of Ctrl-C does."""


@pytest.mark.usefixtures("plain_qemu")
def test_who_is_interrupted_does_not_wait_for_the_guest(pvh):
    """jmp to itself: the machine would be there for ten minutes."""

    def over(_number, _frame):
        raise _OverError

    machine = pvh(engine="qemu", firmware=b"\xf4" * 0xFFF0 + b"\xeb\xfe".ljust(16, b"\xf4"), machine="microvm", seconds=600)
    before = signal.signal(signal.SIGUSR1, over)
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(_OverError):
            machine.run_until_handoff()
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    machine.close()


@pytest.mark.usefixtures("plain_qemu")
@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.step(), "cannot be driven step by step"),
        (lambda m: m.run_until("handoff"), "cannot be stopped at a place but the handoff"),
        (lambda m: m.run_until(port=1), "cannot be stopped by an access to a port"),
        (lambda m: m.run_until(debug_console="x"), "cannot be stopped by a text on its debug console"),
        (lambda m: m.io_log, "cannot be asked for its accesses to devices"),
        (lambda m: m.checkpoint().__enter__(), "cannot be kept by a checkpoint"),
        (lambda m: m.registers, "while it stands at the handoff only"),
    ],
)
def test_what_qemu_does_not_let_a_test_do(pvh, ask, message):
    with pytest.raises(BootError, match=message):
        ask(pvh(engine="qemu", machine="microvm"))
