"""Why a guest got no farther behind a clean handoff is said as well: a loop, a hlt, a flood, a panic, a silent console."""

import json

import pytest
from pvhboot.emu.board import Board
from pvhboot.emu.causes.scene import scene_of_outcome
from pvhboot.emu.causes.table import likely_causes
from pvhboot.emu.cli import main
from pvhboot.emu.com1 import last_line, prints_on_com1
from pvhboot.emu.diagnosis import diagnose
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.engines.names import KVM, UNICORN
from pvhboot.emu.reasons import CONSOLE, EXIT, HALT, LIMIT, RESET
from pvhboot.emu.recent import History
from pvhboot.emu.report.text import outcome_text
from pvhboot.emu.session import boot_board, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.elf import LINUX_NOTE_NAME, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE
from pvhboot.shim.abi.pvh import NOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf
from pvhboot.shim.machines import BARE, MIB
from pvhboot.shim.stock import default_blob
from tiny import PADDR, assembled, kernel_image

TO_EXIT = Until(EXIT)
SECONDS = 0.3  # that a run is given which ends in no other way
NO_INTERRUPT = "the CPU is halted, and no interrupt comes"
PANIC = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"

# By name: what a guest executes, how it ends, and what is said of it.
GUESTS = {
    "a jump to itself": ("a: jmp a", LIMIT, "an endless loop"),
    "the same with interrupts off": ("cli\na: jmp a", LIMIT, "an endless loop"),
    "a condition": ("a: cmp dword ptr [0x500], 1\njne a", LIMIT, "an endless loop"),
    "behind a long store": ("mov edi, 0x200000\nmov ecx, 500\nrep stosb\na: jmp a", LIMIT, "an endless loop"),
    "a loop within a loop": ("a: mov ecx, 50\nb: loop b\ndec eax\njmp a", LIMIT, "an endless loop"),
    "a port": ("mov dx, 0x3fd\na: in al, dx\ntest al, 1\njz a", LIMIT, "a loop waits for port 0x3fd"),
    "COM1": ("mov dx, 0x3f8\nmov al, 0x78\na: out dx, al\njmp a", LIMIT, "a loop prints to COM1, port 0x3f8, without end"),
    "COM1, when it is ready": (
        "a: mov dx, 0x3fd\nb: in al, dx\ntest al, 0x20\njz b\nmov dx, 0x3f8\nmov al, 0x78\nout dx, al\njmp a",
        LIMIT,
        "a loop prints to COM1, port 0x3f8, without end",
    ),
    "the debug console": (
        "mov dx, 0x402\nmov al, 0x78\na: out dx, al\njmp a",
        LIMIT,
        "a loop prints to the debug console, port 0x402, without end",
    ),
    "a port that prints nothing": ("a: out 0x80, al\njmp a", LIMIT, "an endless loop"),
    "hlt": ("cli\nhlt", HALT, "the guest has halted itself"),
    "a reset": ("mov al, 0xfe\nout 0x64, al\na: jmp a", RESET, "the guest has reset the machine"),
}


def linux_image(code: bytes) -> bytes:
    """A kernel that a note calls a Linux."""
    notes = note(NOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY, PADDR.to_bytes(4, "little")) + note(LINUX_NOTE_NAME, 0x101, bytes(4))
    load = ElfSegment(PT_LOAD, PADDR, code, len(code), PF_R | PF_W | PF_X, 4)
    return write_elf(32, PADDR, (load, ElfSegment(PT_NOTE, 0, notes, len(notes), PF_R, 4)), {})


def end_of(image, engine_name, until=TO_EXIT, *, interrupts=False, cmdline=None):
    """The outcome of a guest, what is found out, and the report."""
    blob, engine, limits = default_blob(BARE), get_engine(engine_name), Limits(seconds=SECONDS)
    with Kernel.from_bytes(image, "guest") as kernel:
        plan = make_plan(BARE, blob.data, kernel, memory=32 * MIB, cmdline=cmdline)
        outcome = boot_board(Board(plan, interrupts=interrupts), blob, engine, until, limits)
        diagnosis = diagnose(outcome, engine, until, limits, Board(plan, interrupts=interrupts))
        return outcome, diagnosis, outcome_text(outcome, False, diagnosis)


@pytest.mark.parametrize("name", GUESTS)
def test_the_likeliest_cause(name, engine_name):
    source, reason, title = GUESTS[name]
    outcome, diagnosis, text = end_of(kernel_image(assembled(source)), engine_name)
    assert (outcome.run.stop.reason, outcome.clean) == (reason, True)
    assert [cause.title for cause in diagnosis.causes] == [title]
    cause = diagnosis.causes[0]
    assert all((cause.why, cause.evidence, cause.remedy))
    assert f"\nlikely cause: {title}\n" in text


def test_the_command_line_says_so(tmp_path, engine_name, capsys):
    (tmp_path / "guest").write_bytes(kernel_image(assembled("a: jmp a")))
    arguments = ["boot", str(tmp_path / "guest"), "--until", "exit", "--timeout", str(SECONDS), "--engine", engine_name]
    assert main([*arguments, "--json"]) == 1
    assert [cause["title"] for cause in json.loads(capsys.readouterr().out)["causes"]] == ["an endless loop"]


def test_what_leads_to_a_loop_is_not_counted(engine_name):
    """And where nothing can end it, no condition is to be looked at."""
    _, diagnosis, _ = end_of(kernel_image(assembled("cli\na: jmp a")), engine_name)
    cause, last = diagnosis.causes[0], diagnosis.history.executed[-1]
    assert cause.why == f"The last instruction was executed {last.times} times in a row. Nothing in it can end the loop."
    assert cause.evidence == ("0x100001 (kernel+0x1): jmp 0x100001",)
    assert "condition" not in cause.remedy
    _, diagnosis, _ = end_of(kernel_image(assembled(GUESTS["a condition"][0])), engine_name)
    assert diagnosis.causes[0].evidence[-1] == "it ends by: 0x100007 (kernel+0x7): jne 0x100000"
    assert "condition" in diagnosis.causes[0].remedy


def test_a_jump_to_itself_is_known_where_nothing_was_watched(engine_name):
    outcome, _, _ = end_of(kernel_image(assembled("a: jmp a")), engine_name)
    causes = diagnose(outcome, get_engine(engine_name), TO_EXIT, Limits(), None).causes
    assert [cause.why for cause in causes] == ["The jump there goes to itself. Nothing in it can end the loop."]
    outcome, _, _ = end_of(kernel_image(assembled("a: inc eax\njmp a")), engine_name)
    assert not diagnose(outcome, get_engine(engine_name), TO_EXIT, Limits(), None).causes


# On KVM nobody but the guest knows whether its timers will ever do something, and the time limit ends it.
@pytest.mark.parametrize(
    ("source", "on_kvm"),
    [("sti\na: hlt\njmp a", NO_INTERRUPT), ("sti\nhlt", "the CPU is halted, and waits for an interrupt")],
)
def test_a_hlt_that_nothing_ends(source, on_kvm, engine_name):
    outcome, diagnosis, _ = end_of(kernel_image(assembled(source)), engine_name, interrupts=True)
    assert outcome.run.stop.reason == (LIMIT if engine_name == KVM else HALT)
    assert [cause.title for cause in diagnosis.causes] == [on_kvm if engine_name == KVM else NO_INTERRUPT]
    assert "0x100001 (kernel+0x1): hlt" in diagnosis.causes[0].evidence


def printing(text):
    """A guest that prints, and halts."""
    return f"mov esi, offset t\nmov ecx, offset e - t\nmov dx, 0x3f8\nrep outsb\ncli\nhlt\nt: .ascii {json.dumps(text)}\ne: nop"


@pytest.mark.parametrize(
    ("printed", "said"),
    [("one\ntwo\n\n", "its last line: two"), ("", "it has printed nothing"), ("\n \n", "it has printed nothing")],
)
def test_a_text_that_never_comes(printed, said, engine_name):
    _, _, text = end_of(kernel_image(assembled(printing(printed))), engine_name, Until(CONSOLE, "login:"))
    assert f"\n  COM1 has never printed 'login:'; {said}\n" in text


def test_of_a_text_that_has_come_or_was_not_waited_for_nothing_is_said():
    image = kernel_image(assembled(printing("login:")))
    for until in (Until(CONSOLE, "login:"), TO_EXIT):
        assert "COM1 has never printed" not in end_of(image, UNICORN, until)[2]


@pytest.mark.parametrize("until", [TO_EXIT, Until(CONSOLE, "login:")])
def test_a_panic_is_told_with_its_line(until):
    printed = f"[    1.0] tried:\n[    1.0] {PANIC}\n[    1.0] Kernel Offset: disabled\n"
    outcome, diagnosis, _ = end_of(linux_image(assembled(printing(printed))), UNICORN, until)
    assert [cause.title for cause in diagnosis.causes] == [f"Linux panicked: {PANIC}"]
    assert diagnosis.causes[0].evidence[-1] == f"[    1.0] {PANIC}"
    assert "--initrd" in diagnosis.causes[0].remedy
    # However it ends: with panic=-1 by a reset.
    reset = outcome._replace(run=outcome.run._replace(stop=outcome.run.stop._replace(reason=RESET)))
    assert likely_causes(scene_of_outcome(reset, History())) == list(diagnosis.causes)


SILENT = "nothing on the command line has the kernel print on COM1"


@pytest.mark.parametrize(
    ("make", "cmdline", "source", "told"),
    [
        (linux_image, None, "cli\nhlt", True),
        (linux_image, "quiet console=tty0", "cli\nhlt", True),
        (linux_image, "console=ttyS0", "cli\nhlt", False),
        (linux_image, None, printing("x"), False),
        (kernel_image, None, "cli\nhlt", False),  # whose command line says what nobody knows
    ],
)
def test_a_linux_that_nobody_has_told_to_print(make, cmdline, source, told):
    _, diagnosis, _ = end_of(make(assembled(source)), UNICORN, Until(CONSOLE, "login:"), cmdline=cmdline)
    assert (diagnosis.causes[0].title == SILENT) == told


@pytest.mark.parametrize(
    ("cmdline", "prints"),
    [
        (None, False),
        (b"", False),
        (b"root=/dev/vda console=ttyS0,115200", True),
        (b"earlyprintk=ttyS0", True),
        (b"console=tty0 xconsole=ttyS0", False),
    ],
)
def test_which_words_have_linux_print_on_com1(cmdline, prints):
    assert prints_on_com1(cmdline) == prints


def test_a_line_is_shown_in_one_line_and_short():
    assert last_line(b"a\n\x1b[1mb\xff\r\n\r\n") == "\\x1b[1mb\N{REPLACEMENT CHARACTER}"
    assert len(last_line(b"x" * 1000)) <= 101
