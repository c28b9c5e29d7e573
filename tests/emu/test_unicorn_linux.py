"""What an operating system needs of Unicorn: time that is the guest's own, interrupts that never wedge, system calls; Linux."""

import forge_faults as forge
import pytest
import tick_guest
from initramfs import MARK
from plain import NIGHTLY
from pvhboot.emu.board import Board
from pvhboot.emu.checkpoint import checkpoint
from pvhboot.emu.engines.base import Limits, Until, Watch
from pvhboot.emu.engines.unicorn_cpu import UnicornCpu
from pvhboot.emu.engines.unicorn_pace import NS_PER_INSTRUCTION
from pvhboot.emu.reasons import CONSOLE, EXIT, FAULT, HALT, LIMIT, RESET
from pvhboot.emu.session import boot_board, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.machines import MIB, machine
from pvhboot.shim.stock import default_blob
from tiny import assembled

APIC = 0xFEE00000
TICK_NS = 1_000_000
LAPIC_TICKS = 50


def boot(path, until=None, name="bare", *, seconds=60.0, memory=64, cmdline=None, modules=(), instructions=None, watchers=()):
    """The outcome, and the board's clock."""
    spec = machine(name)
    blob = default_blob(spec)
    with Kernel.open(str(path)) as kernel:
        plan = make_plan(spec, blob.data, kernel, memory=memory * MIB, cmdline=cmdline, modules=modules)
        board = Board(plan, interrupts=True)
        limits = Limits(instructions=instructions, seconds=seconds)
        outcome = boot_board(board, blob, get_engine("unicorn"), until or Until("exit"), limits, watchers)
    return outcome, board.clock


class Watching:
    """Is told all that there is, to no end."""

    def start(self, _cpu, _board):
        return Watch(instruction=lambda _at, _size: None, store=lambda _at, _size, _value: None)


@pytest.fixture
def boot_image(tmp_path):
    def run(image, *arguments, **options):
        (tmp_path / "guest").write_bytes(image)
        return boot(tmp_path / "guest", *arguments, **options)

    return run


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


BUSY = tick_guest.interrupt_guest(
    {0: f"{tick_guest.END_OF_INTERRUPT}inc ebx\ncmp ebx, 40\nje full\nsti\njmp busy\nfull:\n{tick_guest.leave('ebx')}"},
    "mov al, 0x34\nout 0x43, al\nmov al, 0xa9\nout 0x40, al\nmov al, 4\nout 0x40, al\nxor ebx, ebx\nxor esi, esi\nsti\n"
    "busy:\n    inc esi\n    mov edi, esi\n    and edi, 0xff\n    add [0x70000 + edi * 4], esi\n    jmp busy\n",
)


def test_interrupts_of_a_busy_guest_come_at_the_same_instruction_each_time(boot_image):
    runs = [boot_image(BUSY)[0].run for _ in range(2)]
    assert runs[0].stop.value == 40
    assert runs[0].registers == runs[1].registers
    assert runs[0].registers["esi"] > 1000
    assert runs[0].counts == runs[1].counts


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
        assert ends[0][0] == 40
        cpu.let_go()


TIME = """
    rdtsc
    mov esi, eax
    nop
    rdtsc
    sub eax, esi
    mov esi, eax
    mov eax, 1
    cpuid
    and edx, 0x210
    or eax, -1
    mov eax, esi
    shl edx, 16
    or eax, edx
"""


def test_the_time_stamp_counter_is_the_board_s_and_nobody_is_told_of_it(boot_image):
    """CPUID has the local APIC (bit 9) and no TSC (bit 4)."""
    values = {boot_image(tick_guest.interrupt_guest({}, TIME + tick_guest.leave("eax")))[0].run.stop.value for _ in range(2)}
    assert len(values) == 1
    value = values.pop()
    assert value >> 16 == 0x200
    assert 0 < value & 0xFFFF < 5000  # ns


def test_behind_a_software_interrupt_the_time_stamp_counter_returns_to_its_own_place(boot_image):
    """Unicorn would keep the instruction pointer of an int n for what comes after it."""
    start = "int 0x25\nback:\n" + tick_guest.leave("9") + "behind:\nrdtsc\n" + tick_guest.leave("7")
    outcome, _ = boot_image(tick_guest.interrupt_guest({5: "jmp behind\n"}, start))
    assert outcome.run.stop.value == 7


SYSTEM_CALL = """
    mov ecx, 0xc0000080
    rdmsr
    or eax, 1
    wrmsr
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, 0x40
    wrmsr
    mov ecx, 0xc0000082
    mov eax, offset entry
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000084
    mov eax, 0x400
    xor edx, edx
    wrmsr
    mov eax, {data}
    push rax
    mov eax, {stack}
    push rax
    push 2
    mov eax, {code}
    push rax
    mov eax, offset user
    push rax
    iretq
user:
    std
    stc
    syscall
back:
    ud2
entry:
    mov esi, cs
    mov edi, ss
    jnc bad
    pushfq
    pop rax
    test eax, 0x400
    jnz bad
    test r11d, 0x400
    jz bad
    cmp rcx, offset back
    jne bad
    cmp esi, 0x40
    jne bad
    cmp edi, 0x48
    jne bad
    mov eax, 7
    jmp leave
bad:
    mov eax, 9
leave:
    mov edx, 0x501
    out dx, eax
    hlt
"""


def test_a_system_call_enters_ring_0(boot_image):
    body = SYSTEM_CALL.format(data=forge.USER_DATA32, stack=forge.USER_STACK, code=forge.USER_CODE64)
    outcome, _ = boot_image(forge.forge("long", body).elf)
    assert (outcome.run.stop.reason, outcome.run.stop.value) == (EXIT, 7)


@pytest.mark.parametrize("kernel", ["vmlinux-6.1", "vmlinux-6.12"])
def test_debian_s_linux_counts_its_ticks(guest_file, kernel):
    """Past banner and memory map, to the delay loop, which goes by the timer's interrupts."""
    outcome, _ = boot(guest_file(kernel), Until("console", "Mount-cache hash table"), memory=512, cmdline="console=ttyS0")
    text = outcome.console.decode()
    assert outcome.run.stop.reason == CONSOLE, text[-2000:]
    assert "Linux version 6.1" in text
    assert "BIOS-e820: [mem 0x0000000000100000-0x000000001fffffff] usable" in text
    assert "49." in text.split("Calibrating delay loop... ")[1][:3], "BogoMIPS at 50 million instructions a second"


if NIGHTLY:  # tests/build-small-kernel takes minutes, and user space some seconds

    @pytest.mark.parametrize(
        ("kernel", "cmdline"), [("vmlinux-small", ""), ("vmlinuz-small", "nolapic"), ("vmlinux-6.1", ""), ("vmlinux-6.12", "")]
    )
    def test_linux_runs_its_init_and_a_shell_in_it_the_same_each_time(guest_file, initrd, kernel, cmdline):
        runs = [
            boot(
                *(guest_file(kernel), Until("exit")),
                memory=512,
                seconds=600,
                cmdline=f"console=ttyS0 panic=-1 reboot=k {cmdline}",
                modules=[Module(str(initrd))],
            )[0]
            for _ in range(2)
        ]
        text = runs[0].console.decode()
        assert f"{MARK} cpus 1" in text, text[-2000:]
        assert runs[0].run.stop.reason == RESET
        assert runs[0].console == runs[1].console
        assert runs[0].run.counts == runs[1].run.counts
