"""What a run says of its end: segments, and the code at the stop, wherever that lies."""

import pytest
from host import kvm_problem, qemu_problem
from mutant_boot import kernel_image
from pvhboot.emu.board import Board
from pvhboot.emu.engines.base import Limits, Until, code_at
from pvhboot.emu.engines.names import KVM, QEMU, UNICORN
from pvhboot.emu.reasons import EXIT, FAULT
from pvhboot.emu.session import boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.x86 import RESET_VECTOR
from pvhboot.shim.machines import BARE, MIB, MICROVM
from pvhboot.shim.stock import default_blob


def guest_of(code):
    """The kernel of mutants.py with other code."""
    assert len(code) <= 16
    return kernel_image().replace(b"\xf4" * 16, code.ljust(16, b"\xf4"))


@pytest.fixture(params=[UNICORN, KVM, QEMU])
def each_engine(request):
    if problem := {KVM: kvm_problem, QEMU: qemu_problem}.get(request.param, lambda: None)():
        pytest.skip(problem)
    return get_engine(request.param)


def test_the_code_at_a_fault(each_engine):
    spec = MICROVM if each_engine.name == QEMU else BARE
    blob = default_blob(spec)
    with Kernel.from_bytes(guest_of(b"\x31\xc9\xf7\xf1"), "guest") as kernel:  # xor ecx, ecx; div ecx
        plan = make_plan(spec, blob.data, kernel, memory=64 * MIB, host_reserved=each_engine.host_reserved(spec, 64 * MIB))
        run = boot(plan, blob, each_engine, Until(EXIT), Limits(seconds=20.0)).run
    assert run.stop.reason == FAULT
    assert (run.bits, run.code[:4]) == (32, b"\xf7\xf1\xf4\xf4")
    assert (run.segments["cs"].base, run.segments["cs"].db) == (0, True)


def test_code_at_the_end_of_memory_is_short(engine_name):
    blob = default_blob(BARE)
    with Kernel.from_bytes(kernel_image(), "guest") as kernel:
        board = Board(make_plan(BARE, blob.data, kernel, memory=64 * MIB))
        with get_engine(engine_name).cpu(board, Limits()) as cpu:
            assert code_at(cpu, board.memory, RESET_VECTOR) == blob.data[-16:-1]
            assert code_at(cpu, board.memory, 0x40FFA) == board.memory.read(0x40FFA, 15)  # across two pages
            assert code_at(cpu, board.memory, 64 * MIB - 3) == bytes(3)
            assert code_at(cpu, board.memory, 64 * MIB) == b""
