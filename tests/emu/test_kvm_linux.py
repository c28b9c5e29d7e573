"""What an operating system needs of a board on KVM: interrupts, timer, halting, resets. Guests that live by them, no Linux."""

import errno
import os
import signal
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import tick_guest
from host import kvm_problem
from pvhboot.emu import reasons
from pvhboot.emu.board import Board
from pvhboot.emu.engines.base import Limits, Until, Watch
from pvhboot.emu.engines.kvm import device, ticks, uapi
from pvhboot.emu.engines.kvm.engine import KvmEngine
from pvhboot.emu.session import boot_board
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import machine
from pvhboot.shim.stock import default_blob
from tiny import assembled, kernel_image


@pytest.fixture(autouse=True)
def kvm():
    if problem := kvm_problem():
        pytest.skip(problem)


def boot(tmp_path, image, name="bare", *, until="exit", seconds=20, interrupts=True, prepare=lambda _board: None, watchers=()):
    (tmp_path / "kernel").write_bytes(image)
    spec = machine(name)
    blob = default_blob(spec)
    with Kernel.open(str(tmp_path / "kernel")) as kernel:
        board = Board(make_plan(spec, blob.data, kernel, memory=64 << 20), interrupts=interrupts)
        prepare(board)
        return boot_board(board, blob, KvmEngine(), Until(until), Limits(seconds=seconds), watchers)


def typing(data):
    """Somebody has typed that before the guest listens."""

    def prepare(board):
        board.serial.waits_for_rts = True
        board.serial.receive(data)

    return prepare


def code(source):
    return kernel_image(assembled(source))


@pytest.mark.parametrize("name", ["bare", "microvm", "pc", "q35"])
def test_the_timer_ticks_and_wakes_a_halted_guest(tmp_path, name):
    run = boot(tmp_path, tick_guest.tick_guest(100), name).run
    assert (run.stop.reason, run.stop.value) == (reasons.EXIT, 100)
    assert run.counts["kvm_exits"] < 100  # the kernel serves controllers and timer


def test_com1_interrupts(tmp_path):
    typed = b"more than the sixteen bytes of its FIFO, q"
    outcome = boot(tmp_path, tick_guest.echo_guest(), prepare=typing(typed))
    assert outcome.ok
    assert outcome.console == b"!" + typed


def test_the_real_time_clock_goes_on(tmp_path):
    on_tick = f"""{tick_guest.END_OF_INTERRUPT}
        mov     al, 0
        out     0x70, al
        in      al, 0x71
        cmp     al, 1
        jne     idle
        {tick_guest.leave("0")}
    """
    assert boot(tmp_path, tick_guest.interrupt_guest({0: on_tick}, tick_guest.start_ticks(100))).ok


@pytest.mark.parametrize(
    ("source", "reason", "words"),
    [
        ("mov al, 0xfe\nout 0x64, al", reasons.RESET, "the keyboard controller (0xfe to port 0x64)"),
        ("mov dx, 0xcf9\nmov al, 2\nout dx, al\nmov al, 6\nout dx, al", reasons.RESET, "port 0xcf9"),
        ("mov dx, 0xcf9\nmov al, 0x0e\nout dx, al", reasons.RESET, "port 0xcf9"),
        ("in al, 0x92\nor al, 1\nout 0x92, al", reasons.RESET, "port 0x92"),
        ("lidt [0x200000]\nud2", reasons.FAULT, "triple fault"),
    ],
)
@pytest.mark.parametrize("name", ["bare", "microvm", "pc", "q35"])
def test_each_road_to_a_reset_ends_the_run(tmp_path, name, source, reason, words):
    stop = boot(tmp_path, code(f"{source}\nidle:\ncli\nhlt\njmp idle"), name).run.stop
    assert stop.reason == reason
    assert words in stop.detail


def test_a_halt_with_interrupts_off_ends_the_run(tmp_path):
    run = boot(tmp_path, code("cli\nhlt")).run
    assert (run.stop.reason, run.stop.detail, run.stop.rip) == (reasons.HALT, "hlt with interrupts off", 0x100002)


def test_a_halt_with_interrupts_on_idles_to_the_limit_of_time_and_costs_the_host_nothing(tmp_path):
    run = boot(tmp_path, tick_guest.interrupt_guest({}, ""), seconds=0.6).run
    assert run.stop.reason == reasons.LIMIT
    assert run.counts["kvm_exits_interrupted"] <= 0.6 / ticks.TICK + 2
    assert run.counts["kvm_exits"] == 1  # at the entry


def test_an_endless_loop_with_interrupts_off_ends_at_the_limit_of_time(tmp_path):
    assert boot(tmp_path, code("cli\nhere:\njmp here"), seconds=0.3).run.stop.reason == reasons.LIMIT


def test_without_interrupts_all_is_as_it_was(tmp_path):
    outcome = boot(tmp_path, code("sti\nhlt"), interrupts=False)
    assert outcome.run.stop.detail == "hlt with interrupts on, but nothing here raises one"
    assert outcome.run.counts["kvm_exits_hlt"] == 1
    assert outcome.run.counts["kvm_exits"] == 2


class Typist:
    """An Input that presses a key a moment after the guest has begun."""

    def __init__(self, board, keys):
        self.board, self.keys = board, keys

    def poll(self, _seconds):
        self.board.serial.receive(self.keys)
        self.keys = b""

    @contextmanager
    def waking(self, wake):
        timer = threading.Timer(0.2, wake)
        timer.start()
        yield
        timer.cancel()
        timer.join()


def test_a_key_wakes_a_halted_guest_without_waiting_for_a_tick(tmp_path, monkeypatch):
    monkeypatch.setattr(ticks, "TICK", 300.0)
    assert boot(tmp_path, tick_guest.echo_guest(), prepare=lambda board: setattr(board, "input", Typist(board, b"q"))).ok


class Quick:
    """An Input that presses a key when an exit is there, and nobody has looked at it yet."""

    def __init__(self, board, monkeypatch):
        self.board, self.keys, self.wake = board, b"q", lambda: None
        monkeypatch.setattr(device, "fcntl", SimpleNamespace(ioctl=self.ioctl))

    def ioctl(self, fd, request, argument, original=device.fcntl.ioctl):
        result = original(fd, request, argument)
        if request == uapi.KVM_RUN:
            self.wake()
        return result

    def poll(self, _seconds):
        if self.board.console:  # the guest listens
            self.board.serial.receive(self.keys)
            self.keys = b""

    @contextmanager
    def waking(self, wake):
        self.wake = wake
        yield
        self.wake = lambda: None


def test_a_key_is_not_lost_that_is_pressed_as_an_exit_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(ticks, "TICK", 300.0)
    assert boot(tmp_path, tick_guest.echo_guest(), prepare=lambda board: setattr(board, "input", Quick(board, monkeypatch))).ok


def test_by_steps_too_a_halt_with_interrupts_off_ends_the_run(tmp_path):
    """So that a boot which failed so can be made again."""
    seen = []
    watcher = SimpleNamespace(start=lambda _cpu, _board: Watch(instruction=lambda at, _size: seen.append(at)))
    run = boot(tmp_path, code("cli\nhlt\nnop"), watchers=[watcher]).run
    assert (run.stop.reason, run.stop.rip, seen[-1]) == (reasons.HALT, 0x100002, 0x100001)


def test_who_leaves_ends_the_run(tmp_path):
    def prepare(board):
        board.input = SimpleNamespace(poll=lambda _seconds: board.leave("the door"), waking=Typist(board, b"").waking)

    outcome = boot(tmp_path, tick_guest.echo_guest(), until="left", prepare=prepare)
    assert (outcome.run.stop.reason, outcome.run.stop.detail, outcome.ok) == (reasons.LEFT, "the door", True)


def test_ctrl_c_ends_a_halted_guest_with_everything_closed(tmp_path):
    boot(tmp_path, tick_guest.tick_guest(1))
    before = len(os.listdir("/proc/self/fd"))
    finger = threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    finger.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            boot(tmp_path, tick_guest.echo_guest())
    finally:
        finger.join()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("request_number", "words"),
    [
        (uapi.KVM_CREATE_IRQCHIP, "create interrupt controllers"),
        (uapi.KVM_CREATE_PIT2, "create a timer"),
        (uapi.KVM_IRQ_LINE, "set the interrupt line 4"),
    ],
)
def test_what_kvm_refuses_is_said_in_a_line(tmp_path, monkeypatch, request_number, words):
    ioctl = device.fcntl.ioctl

    def refusing(fd, request, argument):
        if request == request_number:
            raise OSError(errno.ENOTTY, "no such thing")
        return ioctl(fd, request, argument)

    monkeypatch.setattr(device, "fcntl", SimpleNamespace(ioctl=refusing))
    with pytest.raises(BootError, match=f"^KVM cannot {words}: no such thing$"):
        boot(tmp_path, tick_guest.echo_guest(), prepare=typing(b"q"))


def test_a_boot_to_the_handoff_takes_few_ioctls(tmp_path):
    run = boot(tmp_path, code("hlt"), until="handoff", interrupts=False).run
    assert run.counts["kvm_ioctls"] - run.counts.get("kvm_exits_interrupted", 0) == 18
    assert run.counts["kvm_exits_debug"] == run.counts["kvm_exits"] == 1
