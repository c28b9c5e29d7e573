"""Many boots, in one process and in many: nothing of the host's is held longer than it is needed. bench/soak.py does more."""

import gc
import os
import subprocess
import sys
import weakref

import pytest
from held import booting, held, virtual_machine_maps
from pvhboot.emu.board import Board
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import EXIT, HANDOFF, LIMIT
from pvhboot.emu.session import boot_board, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE, MACHINES, MIB, MICROVM
from pvhboot.shim.stock import default_blob, default_guest
from tiny import assembled, kernel_image

BOOTS = 100
WARM = 20  # boots until all is imported and the allocators have what they need
RESIDENT = 24 << 10  # KiB that may come and go: less than one of the 64 MiB guests whose memory is filled here
MAPS = 24  # that may: the C library has arenas
PROCESSES = 8


@pytest.fixture(autouse=True)
def linux():
    if sys.platform != "linux":
        pytest.skip("no /proc/self")


def soak(once, count):
    """What is held after WARM times and after `count` more."""
    for _ in range(WARM):
        once()
    before = held()
    for _ in range(count):
        once()
    after = held()
    assert after.countable == before.countable
    assert after.maps <= before.maps + MAPS
    assert after.resident <= before.resident + RESIDENT
    assert virtual_machine_maps() == []


def test_boots_to_the_handoff(engine_name, tmp_path):
    path = tmp_path / "guest"
    path.write_bytes(default_guest(64))
    once = booting(engine_name, MICROVM, str(path), HANDOFF)
    assert once().ok
    soak(once, BOOTS)


def test_boots_of_a_real_kernel(engine_name, guest_file):
    """53 MB of a file are mapped each time."""
    once = booting(engine_name, BARE, str(guest_file("vmlinux-6.1")), HANDOFF, 128 * MIB)
    assert once().ok
    soak(once, BOOTS // 4)


def test_boots_that_go_wrong(engine_name, tmp_path):
    """One ends by its limit, one by a fault, one does not begin."""
    paths = []
    for number, source in enumerate(("a: jmp a", "ud2")):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(kernel_image(assembled(source)))
    blob, engine = default_blob(BARE), get_engine(engine_name)

    def once():
        for path in paths:
            with Kernel.open(str(path)) as kernel:
                plan = make_plan(BARE, blob.data, kernel, memory=32 * MIB)
                boot_board(Board(plan), blob, engine, Until(EXIT), Limits(seconds=0.02))
                with pytest.raises(BootError):
                    make_plan(BARE, blob.data, kernel, memory=32)

    soak(once, BOOTS // 4)


@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_a_board_that_nobody_has_any_more_is_gone_at_once(spec, engine_name):
    """And so is the guest's memory, without waiting for Python to look for cycles."""
    blob, engine = default_blob(spec), get_engine(engine_name)
    gc.collect()
    gc.disable()
    try:
        with Kernel.from_bytes(default_guest(64), "guest") as kernel:
            board = Board(make_plan(spec, blob.data, kernel, memory=32 * MIB))
            outcome = boot_board(board, blob, engine, Until(EXIT), Limits(seconds=60.0))
        assert outcome.ok, outcome.run.stop
        alive = [weakref.ref(part) for part in (board, board.bus, board.memory)]
        del board, outcome, kernel
        assert [part() for part in alive] == [None, None, None]
    finally:
        gc.enable()


def test_checkpoints(pvh):
    """One machine, brought back to its handoff again and again."""
    machine = pvh(memory="64M")
    machine.run_until_handoff()

    def once():
        with machine.checkpoint():
            machine.run_until(port=0x501)

    soak(once, BOOTS)


def test_processes_leave_no_child_and_no_file(engine_name, tmp_path):
    path = tmp_path / "guest"
    path.write_bytes(kernel_image(assembled("a: jmp a")))
    command = [sys.executable, "-c", "import sys; from pvhboot.emu.cli import main; sys.exit(main())", "boot", str(path)]
    command += ["--engine", engine_name, "--memory", "32M", "--until", "exit", "--timeout", "0.2", "--json"]
    before, environment = held(), {**os.environ, "TMPDIR": str(tmp_path)}
    for _ in range(PROCESSES):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
        assert (done.returncode, done.stderr) == (1, "")
        assert f'"reason": "{LIMIT}"' in done.stdout
    assert held().countable == before.countable
    assert os.listdir(tmp_path) == ["guest"]
