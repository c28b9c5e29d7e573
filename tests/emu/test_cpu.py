"""A CPU that is driven: the same on Unicorn and on KVM, as far as the engine can see."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pvhboot.emu.board import Board
from pvhboot.emu.bus import Access
from pvhboot.emu.engines.base import Cpu, Limits, Stop, Watch
from pvhboot.emu.reasons import EXIT, FAULT, LIMIT
from pvhboot.emu.session import get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.shim.abi import x86
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE, MIB, MICROVM, Q35, MachineSpec
from pvhboot.shim.stock import default_blob, default_guest

BLOBS = {spec.name: default_blob(spec) for spec in (BARE, MICROVM, Q35)}


def plan_on(spec: MachineSpec = BARE) -> BootPlan:
    return make_plan(
        spec, BLOBS[spec.name].data, Kernel.from_bytes(default_guest(64), "guest"), memory=64 * MIB, cmdline="words"
    )


@contextmanager
def a_cpu(engine: str, plan: BootPlan, limits: Limits = Limits()) -> Iterator[tuple[Cpu, Board]]:  # noqa: B008
    board = Board(plan)
    with get_engine(engine).cpu(board, limits) as cpu:
        yield cpu, board


def without_repeats(addresses: list[int]) -> list[int]:
    """One of each run of equal ones: of a rep Unicorn tells each iteration, this host's KVM the whole."""
    return [address for number, address in enumerate(addresses) if not number or address != addresses[number - 1]]


@pytest.mark.parametrize("spec", [BARE, MICROVM, Q35], ids=lambda spec: spec.name)
def test_the_instructions_that_are_told_are_those_that_the_other_engine_makes_steps_of(engine_name, spec):
    plan = plan_on(spec)
    told: list[int] = []
    with a_cpu(engine_name, plan) as (cpu, board):
        with cpu.watch(Watch(instruction=lambda address, _size: told.append(address))):
            assert cpu.run_to({plan.entry})
        accesses = list(board.bus.log)
    stepped: list[int] = []
    with a_cpu("unicorn", plan) as (cpu, board):
        while (at := cpu.linear_ip()) != plan.entry:
            stepped.append(at)
            assert cpu.step()
        assert board.bus.log == accesses
        assert cpu.instructions == len(stepped)
    assert without_repeats(told) == without_repeats(stepped)
    assert told[0] == x86.RESET_VECTOR


def test_it_stops_at_each_place_and_goes_on_from_there(engine_name):
    plan, symbols = plan_on(), BLOBS["bare"].symbols
    with a_cpu(engine_name, plan) as (cpu, _):
        assert (cpu.linear_ip(), cpu.bits) == (x86.RESET_VECTOR, 16)
        places = {symbols["protected_mode"], plan.entry}
        assert cpu.run_to(places)
        assert (cpu.linear_ip(), cpu.bits) == (symbols["protected_mode"], 32)
        assert cpu.run_to(places)
        assert cpu.linear_ip() == plan.entry == cpu.registers()["eip"]
        assert cpu.segments() == cpu.handoff().segments
        assert cpu.stop is None


def test_a_place_that_it_stands_at_is_one_to_come_back_to(engine_name):
    """A loop: it is not there already, but one turn later."""
    plan = plan_on()
    with a_cpu(engine_name, plan) as (cpu, board):
        assert cpu.run_to({plan.entry})
        with board.memory.writing(plan.entry, 3) as code:
            code[:] = b"\x40\xeb\xfd"  # inc eax; jmp back to it
        before = cpu.registers()["eax"]
        for turn in range(1, 4):
            assert cpu.run_to({plan.entry})
            assert cpu.registers()["eax"] == before + turn


def test_the_bit_of_eflags_that_is_always_1_is(engine_name):
    plan = plan_on()
    with a_cpu(engine_name, plan) as (cpu, _):
        for _ in range(60):
            assert cpu.registers()["eflags"] & x86.EFLAGS_FIXED
            assert cpu.state().values[-1] & x86.EFLAGS_FIXED
            assert cpu.step()


def test_any_number_of_places_and_a_function_for_a_place(engine_name):
    plan, labels = plan_on(), sorted(BLOBS["bare"].symbols.values())
    in_code = {address for address in labels if address >= 0xFFFF8000}
    assert len(in_code) > 4  # more than a processor has breakpoints
    with a_cpu(engine_name, plan) as (cpu, _):
        assert cpu.run_to(in_code)
        assert cpu.linear_ip() in in_code
        assert cpu.run_to(lambda _address: bool(cpu.registers()["cr0"] & x86.CR0_PE))
        assert cpu.bits == 16  # the jump that loads CS comes next
        assert cpu.step()
        assert cpu.bits == 32


def test_registers_are_written_and_only_those_that_can_be(engine_name):
    plan = plan_on()
    with a_cpu(engine_name, plan) as (cpu, _):
        assert cpu.run_to({plan.entry})
        for name, value in {"eax": 0x12345678, "esp": 0x9000, "eip": plan.entry + 5, "eflags": 0x46}.items():
            cpu.set_register(name, value)
            assert cpu.registers()[name] == value, name
        with pytest.raises(BootError, match="cr0 cannot be written: there is eax, "):
            cpu.set_register("cr0", 0)


def test_without_paging_an_address_is_a_physical_one(engine_name):
    plan = plan_on()
    with a_cpu(engine_name, plan) as (cpu, _):
        assert cpu.translate(x86.RESET_VECTOR) == x86.RESET_VECTOR
        assert cpu.translate(0x1234) == 0x1234


@pytest.mark.parametrize("counting", [True, False])
def test_of_instructions_those_in_a_span_are_told(engine_name, counting):
    plan = plan_on()
    rom: list[int] = []
    kernel: list[int] = []
    with a_cpu(engine_name, plan, Limits(exits=20)) as (cpu, _):
        in_rom = Watch(instruction=lambda address, _size: rom.append(address), spans=((0xFFFF0000, 1 << 32),))
        in_kernel = Watch(
            instruction=lambda address, _size: kernel.append(address), spans=((1, 2), (plan.entry, plan.entry + 16))
        )
        with cpu.watch(in_rom), cpu.watch(in_kernel):
            assert cpu.run_to({plan.entry}, counting=counting)
            assert not kernel
            assert rom[0] == x86.RESET_VECTOR
            firmware = len(rom)
            assert firmware > 50
            cpu.run_to((), counting=counting)
    assert len(rom) == firmware
    assert kernel[0] == plan.entry
    assert max(kernel) < plan.entry + 16
    assert len(kernel) == len(set(kernel))


def test_a_run_is_over_when_a_device_or_a_watch_says_so(engine_name):
    plan = plan_on()
    with a_cpu(engine_name, plan) as (cpu, _):
        assert not cpu.run_to(())
        assert cpu.stop is not None
        assert (cpu.stop.reason, cpu.stop.value) == (EXIT, 0)
        assert not cpu.run_to({plan.entry})
        assert not cpu.step()
    with a_cpu(engine_name, plan) as (cpu, _):
        stop = Stop(FAULT, "for a reason", None)
        with cpu.watch(Watch(instruction=lambda _address, _size: cpu.end(stop))):
            assert not cpu.run_to({plan.entry})
        assert cpu.stop == stop


def test_the_last_instruction_halts(engine_name):
    plan = plan_on()
    with a_cpu(engine_name, plan) as (cpu, board):
        assert cpu.run_to({plan.entry})
        with board.memory.writing(plan.entry, 1) as code:
            code[:] = b"\xf4"
        assert not cpu.step()
        assert cpu.stop is not None
        assert cpu.stop.reason == "halt"


def test_what_devices_write_is_told(engine_name):
    plan = plan_on(MICROVM)
    told: list[tuple[int, int]] = []
    with a_cpu(engine_name, plan) as (cpu, _), cpu.watch(Watch(device_store=lambda *where: told.append(where))):
        assert cpu.run_to({plan.entry})
    assert told
    assert all(size for _, size in told)


def test_accesses_are_told_as_they_are_logged(engine_name):
    plan = plan_on(MICROVM)
    told: list[Access] = []
    with a_cpu(engine_name, plan) as (cpu, board):
        board.bus.listeners.append(told.append)
        assert cpu.run_to({plan.entry})
        assert told == board.bus.log != []


def test_only_the_time_counts_in_which_it_executes(engine_name):
    plan = plan_on()
    with a_cpu(engine_name, plan, Limits(seconds=0.5)) as (cpu, board):
        time.sleep(0.6)
        assert cpu.run_to({plan.entry})
        with board.memory.writing(plan.entry, 2) as code:
            code[:] = b"\xeb\xfe"
        assert not cpu.run_to(())
        assert cpu.stop is not None
        assert (cpu.stop.reason, cpu.stop.detail) == (LIMIT, "0.5 seconds of wall time are over")


def test_unicorn_tells_loads_and_stores_before_they_happen():
    plan = plan_on()
    loads: list[tuple[int, int]] = []
    stores: list[tuple[int, bytes, int]] = []
    with a_cpu("unicorn", plan) as (cpu, board):

        def store(paddr: int, size: int, value: int) -> None:
            stores.append((paddr, board.memory.read(paddr, size), value))

        with cpu.watch(Watch(load=lambda *where: loads.append(where), store=store)):
            assert cpu.run_to({plan.entry})
        info = cpu.registers()["ebx"]
        magic = [(old, value) for paddr, old, value in stores if paddr == info]
        assert magic == [(bytes(4), 0x336EC578)]
        assert loads
        count = len(loads), len(stores)
        assert not cpu.run_to(())  # the watch is over
        assert (len(loads), len(stores)) == count


def test_a_pause_within_a_store_lets_the_instruction_end():
    plan = plan_on()
    with a_cpu("unicorn", plan) as (cpu, board):
        with cpu.watch(Watch(store=lambda _paddr, _size, value: cpu.pause() if value == 0x336EC578 else None)):
            assert not cpu.run_to({plan.entry})
            assert cpu.stop is None
            count = cpu.instructions
            assert b"\x78\xc5\x6e\x33" in board.memory.read(0, MIB)
        assert cpu.run_to({plan.entry})
        assert cpu.instructions > count
    with a_cpu("unicorn", plan) as (whole, _):
        assert whole.run_to({plan.entry})
        assert whole.instructions == cpu.instructions


def test_uncounted_it_stops_at_the_same_places_and_at_the_same_end():
    plan, symbols = plan_on(), BLOBS["bare"].symbols
    with a_cpu("unicorn", plan) as (cpu, _):
        assert cpu.run_to({symbols["protected_mode"]}, counting=False)
        assert (cpu.linear_ip(), cpu.instructions) == (symbols["protected_mode"], 0)
        assert cpu.run_to({plan.entry, symbols["protected_mode"]}, counting=False)
        assert cpu.linear_ip() == plan.entry
        assert not cpu.run_to((), counting=False)
        assert cpu.stop is not None
        assert cpu.stop.reason == EXIT


def test_instructions_are_limited_to_the_number():
    plan = plan_on()
    with a_cpu("unicorn", plan, Limits(instructions=10)) as (cpu, _):
        assert not cpu.run_to({plan.entry})
        assert cpu.stop is not None
        assert (cpu.stop.reason, cpu.instructions) == (LIMIT, 10)


def test_kvm_says_what_it_cannot_see(engine_name):
    if engine_name == "unicorn":
        with a_cpu(engine_name, plan_on()) as (cpu, _), cpu.watch(Watch(load=lambda *_: None, store=lambda *_: None)):
            cpu.save()
        return
    with a_cpu(engine_name, plan_on()) as (cpu, _):
        with (
            pytest.raises(BootError, match="does not see what a guest reads and writes: use --engine unicorn"),
            cpu.watch(Watch(store=lambda *_: None)),
        ):
            raise AssertionError
        with pytest.raises(BootError, match="keeps no checkpoints"):
            cpu.save()


def test_qemu_is_not_driven():
    with pytest.raises(BootError, match="cannot be driven step by step"):
        get_engine("qemu").cpu(Board(plan_on()), Limits())


def test_a_cpu_in_another_thread(engine_name):
    """KVM's is interrupted by signals, which go to the main thread."""
    ended: list[object] = []

    def drive(cpu, places):
        try:
            ended.append(cpu.run_to(places))
        except BootError as error:
            ended.append(str(error))

    with a_cpu(engine_name, plan_on()) as (cpu, board):
        thread = threading.Thread(target=drive, args=(cpu, {board.entry}))
        thread.start()
        thread.join()
    refused = "the kvm engine runs in the main thread only: elsewhere no signal can end an endless loop"
    assert ended == [True if engine_name == "unicorn" else refused]
