"""How Unicorn keeps time, and when it takes an interrupt: alike in each run, and never not at all."""

import pytest
import tick_guest
from pvhboot.emu.board import Board
from pvhboot.emu.checkpoint import checkpoint
from pvhboot.emu.engines import unicorn_pace
from pvhboot.emu.engines.base import Limits, Watch
from pvhboot.emu.engines.unicorn_cpu import UnicornCpu
from pvhboot.emu.engines.unicorn_pace import NS_PER_INSTRUCTION
from pvhboot.emu.reasons import EXIT, FAULT, HALT, LIMIT
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.machines import MIB, machine
from pvhboot.shim.stock import default_blob
from tiny import assembled

APIC = 0xFEE00000
TICK_NS = 1_000_000
LAPIC_TICKS = 50


class Watching:
    """Is told all that there is, to no end."""

    def start(self, _cpu, _board):
        return Watch(instruction=lambda _at, _size: None, store=lambda _at, _size, _value: None)


def lapic_guest(*, periodic: bool) -> bytes:
    """Counts LAPIC_TICKS interrupts of the local APIC's timer, by a vector of no 8259A's; leaves with their number."""
    vector = tick_guest.FIRST_VECTOR + 5
    arm = f"mov dword ptr [{APIC + 0x380}], 1000000\n"
    start = f"""
        mov     dword ptr [{APIC + 0xF0}], 0x1ff
        mov     dword ptr [{APIC + 0x350}], 0x10700
        mov     dword ptr [{APIC + 0x3E0}], 0xb
        mov     dword ptr [{APIC + 0x320}], {vector | (1 << 17 if periodic else 0)}
        {arm}
        xor     ebx, ebx
"""
    again = "" if periodic else arm
    body = f"inc ebx\ncmp ebx, {LAPIC_TICKS}\nje full\n{again}mov dword ptr [{APIC + 0xB0}], 0\njmp idle\nfull:\n"
    return tick_guest.interrupt_guest({5: body + tick_guest.leave("ebx")}, start)


@pytest.mark.parametrize("name", ["bare", "microvm", "pc", "q35"])
def test_a_hundred_ticks_of_the_8254_are_a_hundred_interrupts(boot_image, name):
    outcome, clock = boot_image(tick_guest.tick_guest(100), name=name)
    assert (outcome.run.stop.reason, outcome.run.stop.value) == (EXIT, 100)
    assert outcome.run.counts["interrupts"] == 100
    assert 99 * TICK_NS <= clock.now < 101 * TICK_NS
    assert outcome.run.counts["executed"] < 100_000  # it halts in between


@pytest.mark.parametrize("periodic", [True, False])
def test_the_local_apic_s_timer_interrupts(boot_image, periodic):
    outcome, clock = boot_image(lapic_guest(periodic=periodic))
    assert (outcome.run.stop.reason, outcome.run.stop.value) == (EXIT, LAPIC_TICKS)
    assert outcome.run.counts["interrupts"] == LAPIC_TICKS
    assert LAPIC_TICKS * TICK_NS <= clock.now < (LAPIC_TICKS + 1) * TICK_NS


TICKS = 40


def busy_guest(work: str) -> bytes:
    """Does some work in an endless loop, and counts its rounds in ESI, until the 8254 has ticked TICKS times."""
    on_tick = f"{tick_guest.END_OF_INTERRUPT}inc ebx\ncmp ebx, {TICKS}\nje full\nsti\njmp busy\nfull:\n"
    start = f"{tick_guest.start_ticks(1000)}xor ebx, ebx\nxor esi, esi\nsti\nbusy:\ninc esi\n{work}jmp busy\n"
    return tick_guest.interrupt_guest({0: on_tick + tick_guest.leave("ebx")}, start)


BUSY = busy_guest("mov edi, esi\nand edi, 0xff\nadd [0x70000 + edi * 4], esi\n")


def test_interrupts_of_a_busy_guest_come_at_the_same_instruction_each_time(boot_image):
    runs = [boot_image(BUSY)[0].run for _ in range(2)]
    assert runs[0].stop.value == TICKS
    assert runs[0].registers == runs[1].registers
    assert runs[0].registers["esi"] > 1000
    assert runs[0].counts == runs[1].counts


@pytest.mark.parametrize("code", ["rep stosb", "in al, 0x40", "rdtsc"])
def test_an_interrupt_comes_where_it_does_however_long_the_slices_are(boot_image, monkeypatch, code):
    """These are as long as the host is fast. What looks at a timer takes time of its own."""
    image = busy_guest(f"mov edi, 0x200000\nmov ecx, 300\n{code}\n")
    runs = []
    for most in (8000, 11_000, 200_000):
        monkeypatch.setattr(unicorn_pace, "_SLICE", most)
        runs.append(boot_image(image)[0].run)
    assert runs[0].stop.value == TICKS
    assert runs[0].registers == runs[1].registers == runs[2].registers
    assert runs[0].counts == runs[1].counts == runs[2].counts


@pytest.mark.parametrize("length", [4, 5, 61, 122, 255, 1024, 1037])
def test_who_lets_interrupts_in_for_a_moment_gets_them(boot_image, length):
    """In a loop of so many instructions, for two of them; the timer asks but once, so that its ticks cannot help."""
    once = "mov al, 0x30\nout 0x43, al\nmov al, 0\nout 0x40, al\nmov al, 4\nout 0x40, al\n"
    start = once + "again:\n" + "nop\n" * (length - 4) + "sti\nnop\ncli\njmp again\n"
    outcome, _ = boot_image(tick_guest.interrupt_guest({0: tick_guest.leave("7")}, start), instructions=5_000_000)
    assert outcome.run.stop.value == 7


def test_stepping_does_not_move_an_interrupt(tmp_path):
    start = tick_guest.start_ticks(1000) + "xor esi, esi\nagain:\ninc esi\nnop\nnop\nsti\nnop\ncli\njmp again\n"
    (tmp_path / "guest").write_bytes(tick_guest.interrupt_guest({0: tick_guest.leave("7")}, start))
    spec, ends = machine("bare"), []
    for stepping in (False, True):
        with Kernel.open(str(tmp_path / "guest")) as kernel:
            board = Board(make_plan(spec, default_blob(spec).data, kernel, memory=64 * MIB), interrupts=True)
            cpu = UnicornCpu(board, Limits())
            assert cpu.run_to({board.entry})
            while stepping and board.clock.now < 2 * TICK_NS and cpu.step():
                pass
            cpu.run_to(())
            ends.append((cpu.stop and cpu.stop.value, cpu.registers(), cpu.counts()["executed"]))
            cpu.let_go()
    assert ends[0] == ends[1]


def test_who_watches_every_instruction_does_not_move_an_interrupt(boot_image):
    alone = boot_image(BUSY)[0].run
    counting = boot_image(BUSY, instructions=10_000_000)[0].run
    traced = boot_image(BUSY, watchers=[Watching()])[0].run
    assert alone.registers == counting.registers == traced.registers
    assert alone.counts["executed"] == counting.counts["executed"] == traced.counts["executed"]


@pytest.mark.parametrize(
    ("code", "shadowed"), [("sti\ninc ebx", True), ("mov ss, eax\ninc ebx", True), ("nop\ninc ebx", False)]
)
def test_an_interrupt_that_waits_is_not_taken_in_a_shadow(tmp_path, code, shadowed):
    """It is behind sti or a load of SS: there the next instruction is executed before the handler."""
    wait = "again:\nin al, 0x20\ntest al, 1\njz again\n"
    before = "" if code.startswith("sti") else "sti\nnop\n"
    start = f"mov al, 0x30\nout 0x43, al\nmov al, 2\nout 0x40, al\nout 0x40, al\nmov eax, ss\n{before}{code}\n"
    start = start if before else start.replace(code, wait + "mov eax, ss\n" + code)
    image = tick_guest.interrupt_guest({0: "xchg ebx, ebx\n" + tick_guest.leave("ebx")}, start)
    (tmp_path / "guest").write_bytes(image)
    spec = machine("bare")
    with Kernel.open(str(tmp_path / "guest")) as kernel:
        board = Board(make_plan(spec, default_blob(spec).data, kernel, memory=64 * MIB), interrupts=True)
        cpu = UnicornCpu(board, Limits())
        memory = board.memory.read(0x100000, 0x1000)
        first = memory.index(assembled(code))
        assert cpu.run_to({0x100000 + first + len(assembled(code.splitlines()[0]))})
        board.clock.advance(TICK_NS)
        board.clock.run_due()
        assert board.apic is not None
        assert board.apic.requested
        assert board.apic.told is not None
        board.apic.told()  # that it waits already is looked at every now and then only
        before_step = cpu.registers()["ebx"]
        cpu.step()
        assert (cpu.registers()["ebx"] == before_step + 1) is shadowed
        cpu.step()
        cpu.step()
        assert cpu.linear_ip() > 0x100000 + memory.index(b"\x87\xdb")
        cpu.let_go()


def test_a_rep_is_interrupted_between_two_of_its_rounds_and_goes_on(boot_image):
    start = (
        "mov al, 0x34\nout 0x43, al\nmov al, 0xa9\nout 0x40, al\nmov al, 4\nout 0x40, al\nxor ebx, ebx\n"
        "mov edi, 0x200000\nmov ecx, 500000\nmov al, 0x5a\ncld\nsti\nrep stosb\ncli\n"
        "cmp edi, 0x200000 + 500000\njne bad\n" + tick_guest.leave("ebx") + "bad:\n" + tick_guest.leave("0")
    )
    # The handler keeps its registers, and goes back by iret.
    handler = "sub esp, 12\npush eax\nmov al, 0x20\nout 0x20, al\npop eax\ninc ebx\niretd\n"
    outcome, _ = boot_image(tick_guest.interrupt_guest({0: handler}, start))
    assert outcome.run.stop.value == 500_000 * NS_PER_INSTRUCTION // TICK_NS


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("sti\nhlt\n", "hlt with interrupts on, but nothing here raises one"),
        ("cli\nhlt\n", "hlt with interrupts off"),
    ],
)
def test_a_hlt_that_nothing_ends_ends_the_run(boot_image, code, detail):
    outcome, _ = boot_image(tick_guest.interrupt_guest({}, code))
    assert outcome.run.stop[:2] == (HALT, detail)


def test_an_interrupt_that_cannot_be_delivered_is_a_fault(boot_image):
    tick = "mov al, 0x14\nout 0x43, al\nmov al, 100\nout 0x40, al\n"
    unmask = "mov al, 0\nout 0x21, al\n"
    outcome, _ = boot_image(tick_guest.interrupt_guest({}, f"{tick}{unmask}sti\nforever: jmp forever\n"))
    assert outcome.run.stop.reason == FAULT
    assert outcome.run.stop.detail.startswith("interrupt 0x20, and gate 32 of the IDT is empty")


def test_an_endless_loop_of_ticks_ends_with_the_time(boot_image):
    endless = tick_guest.interrupt_guest(
        {0: f"{tick_guest.END_OF_INTERRUPT}jmp idle\n"}, "mov al, 0x14\nout 0x43, al\nout 0x40, al\n"
    )
    outcome, _ = boot_image(endless, seconds=0.3)
    assert outcome.run.stop.reason == LIMIT
    assert outcome.run.counts["interrupts"] > 10


@pytest.mark.parametrize("masked", [False, True])
def test_a_storm_of_the_fastest_timer_lets_the_guest_get_on(boot_image, masked):
    vector = tick_guest.FIRST_VECTOR + 5
    start = f"""
        mov     dword ptr [{APIC + 0xF0}], 0x1ff
        mov     dword ptr [{APIC + 0x350}], 0x10700
        mov     dword ptr [{APIC + 0x3E0}], 0xb
        mov     dword ptr [{APIC + 0x320}], {vector | 1 << 17 | masked << 16}
        mov     dword ptr [{APIC + 0x380}], 1
        mov     ecx, 2000
        sti
    busy:
        loop    busy
        cli
        {tick_guest.leave("7")}
"""
    handler = f"sub esp, 12\nmov dword ptr [{APIC + 0xB0}], 0\niretd\n"
    outcome, _ = boot_image(tick_guest.interrupt_guest({5: handler}, start))
    assert outcome.run.stop[:1] + outcome.run.stop[3:] == (EXIT, 7)
    assert (outcome.run.counts["interrupts"] == 0) is masked


@pytest.mark.parametrize("code", ["sti\nhlt\nback: jmp back\n", "back: jmp back\n"])
def test_a_storm_that_goes_nowhere_ends_with_the_time(boot_image, code):
    arm = f"mov dword ptr [{APIC + 0xF0}], 0x1ff\nmov dword ptr [{APIC + 0x320}], {1 << 17 | 1 << 16 | 0x40}\n"
    outcome, clock = boot_image(tick_guest.interrupt_guest({}, f"{arm}mov dword ptr [{APIC + 0x380}], 1\n{code}"), seconds=0.3)
    assert outcome.run.stop.reason == LIMIT
    assert clock.now > TICK_NS


def test_a_checkpoint_brings_clock_and_interrupts_back(tmp_path):
    (tmp_path / "guest").write_bytes(BUSY)
    spec = machine("bare")
    with Kernel.open(str(tmp_path / "guest")) as kernel:
        board = Board(make_plan(spec, default_blob(spec).data, kernel, memory=64 * MIB), interrupts=True)
        cpu = UnicornCpu(board, Limits())
        assert cpu.run_to({board.entry})
        ends = []
        for _ in range(2):
            with checkpoint(cpu, board):
                cpu.run_to(())
                assert cpu.stop is not None
                ends.append((cpu.stop.value, cpu.registers(), cpu.counts(), board.clock.now))
        assert ends[0] == ends[1]
        assert ends[0][0] == TICKS
        cpu.let_go()
