"""Exceptions on Unicorn: what a handler finds, which handler it is, and what ends a run; QEMU's TCG is the second opinion."""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import forge_faults as forge
import pytest
from forge_faults import Gate, resume, store
from host import qemu_problem
from pvhboot.emu.board import Board
from pvhboot.emu.cli import main
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import CONSOLE, EXIT, FAULT, LIMIT
from pvhboot.emu.session import Outcome, boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import x86
from pvhboot.shim.abi.fw_cfg import FW_CFG_DMA_PORT as DMA_PORT
from pvhboot.shim.assembler import assemble
from pvhboot.shim.blob import Blob
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE, MIB, MICROVM
from pvhboot.shim.source import Unit
from pvhboot.shim.stock import default_blob

ALL = ("flat", "paged", "pae", "long")
PAGED = ("paged", "pae", "long")
NARROW = ("flat", "paged", "pae")
MAGIC = 0x1234567
LOW = 0xF0000  # where the end of a ROM lies in real mode


class Case(NamedTuple):
    """`body` is assembly for a mode; `records` are the fields of the handlers' records that are looked at, where a string is a
    label. `alone`: modes in which QEMU 7.2 has another error code: it never sets EXT, and in long mode takes the vector times
    16, where the SDM and processors have 8."""

    modes: tuple[str, ...]
    body: Callable[[str], str]
    records: list[dict[str, Any]]
    gates: Mapping[int, Gate] = {}
    alone: tuple[str, ...] = ()
    idt_limit: int | None = None


def skipping(code: str) -> Callable[[str], str]:
    """The handler goes on behind the code."""
    return lambda mode: resume(mode, "after") + code + "after:\n"


def plain(code: str) -> Callable[[str], str]:
    """The handler comes back to where the frame says."""
    return lambda _: code


def in_user_mode(code: str) -> Callable[[str], str]:
    """Ring 3 with its own stack; at its end back to ring 0 and `done`."""

    def body(mode: str) -> str:
        wide = mode == "long"
        code_selector = forge.USER_CODE64 if wide else forge.USER_CODE32
        a = "r" if wide else "e"
        values = [forge.USER_DATA32, forge.USER_STACK, 2, code_selector, "offset user"]
        pushes = "".join(f"    mov eax, {value}\n    push {a}ax\n" for value in values)
        segments = "" if wide else f"    mov eax, {forge.USER_DATA32}\n    mov ds, eax\n    mov es, eax\n"
        leave = "user_done:\n    int 0x81\n"
        return segments + pushes + ("    iretq\n" if wide else "    iretd\n") + "user:\n" + code + leave

    return body


def mapping(page: int, code: str) -> Callable[[str], str]:
    """The handler gives a page a writable frame; then the code finds MAGIC there, or comes to #UD."""
    frame = forge.PAGES[page][0]

    def body(mode: str) -> str:
        entry = store(mode, forge.PTE_AT, forge.pte_at(mode, page)) + store(mode, forge.PTE_VALUE, frame | 3)
        check = f"    mov esi, {page}\n    cmp dword ptr [esi], {MAGIC}\n    je good\n    ud2\ngood:\n"
        return (
            f"    mov esi, {frame}\n    mov dword ptr [esi], {MAGIC}\n" + entry + f"    mov esi, {page}\nhere:\n{code}" + check
        )

    return body


READ, WRITE = "    mov ebx, dword ptr [esi]\n", "    mov dword ptr [esi], ecx\n"


def touching(page: int, code: str) -> str:
    return f"    mov esi, {page}\nhere:\n{code}"


ABSENT, READ_ONLY, KERNEL_PAGE, USER_READ_ONLY = 0x400000, 0x401000, 0x402000, 0x403000
STEPPING = """
    pushf{wide}
    or dword ptr [{sp}], 0x100
    popf{wide}
    nop
one:
    pushf{wide}
two:
    and dword ptr [{sp}], 0xfffffeff
three:
    popf{wide}
four:
"""
NARROW_HANDLER = f"""
    jmp over
narrow:
    mov ecx, dword ptr [esp]
    mov edx, dword ptr [esp + 4]
    mov esp, {forge.STACK - 64}
    push ecx
    push edx
    int 0x80
    ljmp 8, offset done
over:
    int 0x49
return_here:
"""
VM86 = f"""
    mov dword ptr [0x30000], 0x81cd80cd
    push 0x3333
    push 0x4444
    push 0x5555
    push 0x6666
    push 0x2000
    push 0x0ff0
    push 0x23002
    push 0x3000
    push 0
    iretd
enter_80:
    mov eax, {forge.DATA32}
    mov ds, eax
    jmp handler_3
enter_81:
    mov eax, {forge.DATA32}
    mov ds, eax
    mov es, eax
"""

CASES = {
    "divide": Case(ALL, skipping("    xor edx, edx\n    xor ecx, ecx\nhere:\n    div ecx\n"), [{"vector": 0, "ip": "here"}]),
    "breakpoint": Case(ALL, plain("    int3\nnext:\n"), [{"vector": 3, "ip": "next"}]),
    "into": Case(NARROW, plain("    mov eax, 0x7fffffff\n    add eax, 1\n    into\nnext:\n"), [{"vector": 4, "ip": "next"}]),
    "trap-gate": Case(ALL, plain("    sti\n    int 0x80\nnext:\n    cli\n"), [{"vector": 0x80, "ip": "next", "if": True}]),
    "interrupt-gate": Case(ALL, plain("    sti\n    int3\nnext:\n    cli\n"), [{"vector": 3, "ip": "next", "if": False}]),
    "flags-come-back": Case(
        ALL,
        plain("    xor eax, eax\n    std\n    stc\n    int3\n    int3\n    cld\n"),
        [{"vector": 3, "frame_flags": 0x447}] * 2,
    ),
    "single-step": Case(ALL, plain(STEPPING), [{"vector": 1, "ip": ip} for ip in ("one", "two", "three", "four")]),
    "undefined": Case(ALL, skipping("here:\n    ud2\n"), [{"vector": 6, "ip": "here"}]),
    "read": Case(PAGED, skipping(touching(ABSENT, READ)), [{"vector": 14, "code": 0, "cr2": ABSENT, "ip": "here"}]),
    "write": Case(PAGED, skipping(touching(ABSENT + 8, WRITE)), [{"vector": 14, "code": 2, "cr2": ABSENT + 8, "ip": "here"}]),
    "write-protected": Case(PAGED, skipping(touching(READ_ONLY, WRITE)), [{"vector": 14, "code": 3, "cr2": READ_ONLY}]),
    "across-pages": Case(PAGED, skipping(touching(ABSENT - 2, READ)), [{"vector": 14, "code": 0, "cr2": ABSENT}]),
    "fetch": Case(
        ("pae", "long"),
        skipping(f"    mov esi, {ABSENT}\n    jmp {{si}}\n"),
        [{"vector": 14, "code": 0x10, "cr2": ABSENT, "ip": ABSENT}],
    ),
    "fetch-no-execute": Case(
        ("pae", "long"),
        skipping(f"    mov esi, {forge.NO_EXECUTE_PAGE}\n    jmp {{si}}\n"),
        [{"vector": 14, "code": 0x11, "cr2": forge.NO_EXECUTE_PAGE, "ip": forge.NO_EXECUTE_PAGE}],
    ),
    "mapped-and-read-again": Case(PAGED, mapping(ABSENT, READ), [{"vector": 14, "code": 0, "ip": "here"}]),
    "mapped-and-written-again": Case(
        PAGED, mapping(ABSENT, f"    mov dword ptr [esi], {MAGIC}\n"), [{"vector": 14, "code": 2, "ip": "here"}]
    ),
    "allowed-and-written-again": Case(
        PAGED, mapping(READ_ONLY, f"    mov dword ptr [esi], {MAGIC}\n"), [{"vector": 14, "code": 3, "ip": "here"}]
    ),
    "selector": Case(
        ALL, skipping("    mov ecx, 0xffa\nhere:\n    mov fs, ecx\n"), [{"vector": 13, "code": 0xFF8, "ip": "here"}]
    ),
    "absent-segment": Case(
        ALL,
        skipping(f"    mov ecx, {forge.ABSENT_CODE}\nhere:\n    mov fs, ecx\n"),
        [{"vector": 11, "code": forge.ABSENT_CODE, "ip": "here"}],
    ),
    "absent-gate": Case(
        ALL,
        skipping("here:\n    int 0x44\n"),
        [{"vector": 11, "code": 0x222, "ip": "here"}],
        {0x44: Gate(present=False)},
        alone=("long",),
    ),
    "absent-gate-of-an-exception": Case(
        ALL, skipping("here:\n    ud2\n"), [{"vector": 11, "code": 0x33, "ip": "here"}], {6: Gate(present=False)}, alone=ALL
    ),
    "empty-gate": Case(ALL, skipping("here:\n    int 0x45\n"), [{"vector": 13, "code": 0x22A, "ip": "here"}], alone=("long",)),
    "wrong-gate": Case(
        ALL, skipping("here:\n    int 0x46\n"), [{"vector": 13, "code": 0x232}], {0x46: Gate(kind=0x2)}, alone=("long",)
    ),
    "gate-beyond-the-limit": Case(
        ALL,
        skipping("here:\n    int 0x7f\n"),
        [{"vector": 13, "code": 0x3FA, "ip": "here"}],
        {0x7F: Gate()},
        idt_limit=0x3F0,
        alone=("long",),
    ),
    "gate-to-nothing": Case(ALL, skipping("    int 0x47\n"), [{"vector": 13, "code": 0xFF8}], {0x47: Gate(selector=0xFFB)}),
    "gate-to-null": Case(ALL, skipping("    int 0x47\n"), [{"vector": 13, "code": 0}], {0x47: Gate(selector=3)}),
    "gate-to-data": Case(
        ALL, skipping("    int 0x47\n"), [{"vector": 13, "code": forge.DATA32}], {0x47: Gate(selector=forge.DATA32)}
    ),
    "gate-to-absent-code": Case(
        NARROW,
        skipping("    int 0x47\n"),
        [{"vector": 11, "code": forge.ABSENT_CODE}],
        {0x47: Gate(selector=forge.ABSENT_CODE)},
    ),
    "gate-to-32-bit-code": Case(
        ("long",), skipping("    int 0x47\n"), [{"vector": 13, "code": forge.CODE32}], {0x47: Gate(selector=forge.CODE32)}
    ),
    "gate-to-user-code": Case(
        NARROW, skipping("    int 0x47\n"), [{"vector": 13, "code": 0x18}], {0x47: Gate(selector=forge.USER_CODE32)}
    ),
    "double-fault": Case(
        ALL,
        skipping("    xor edx, edx\n    xor ecx, ecx\nhere:\n    div ecx\n"),
        [{"vector": 8, "code": 0, "ip": "here"}],
        {0: Gate(present=False)},
    ),
    "double-page-fault": Case(
        ("long",),
        skipping(f"    mov esp, {ABSENT + 0x800}\nhere:\n    int3\n"),
        [{"vector": 8, "code": 0, "ip": "here", "cr2": ABSENT + 0x7F8, "sp": forge.IST_STACK - 48, "frame_sp": ABSENT + 0x800}],
        {8: Gate(ist=1)},
    ),
    "fault-then-page-fault": Case(
        ("long",),
        skipping(f"    xor edx, edx\n    xor ecx, ecx\n    mov esp, {ABSENT + 0x800}\nhere:\n    div ecx\n"),
        [{"vector": 14, "code": 2, "ip": "here", "cr2": ABSENT + 0x7F8, "sp": forge.IST_STACK - 48}],
        {14: Gate(ist=1)},
    ),
    "interrupt-stack": Case(
        ("long",), plain("    int3\nnext:\n"), [{"vector": 3, "sp": forge.IST_STACK - 40}], {3: Gate(dpl=3, ist=1)}
    ),
    "aligned": Case(
        ("long",),
        plain(f"    mov esp, {forge.STACK - 0x104}\n    int3\n"),
        [{"vector": 3, "sp": forge.STACK - 0x138, "frame_sp": forge.STACK - 0x104}],
    ),
    "from-user-mode": Case(
        ALL,
        in_user_mode("    int3\nnext:\n"),
        [{"vector": 3, "ip": "next", "frame_sp": forge.USER_STACK, "frame_ss": forge.USER_DATA32, "inner": True}],
    ),
    "not-for-user-mode": Case(
        ALL,
        lambda mode: resume(mode, "user_done") + in_user_mode("here:\n    int 0x4a\n")(mode),
        [{"vector": 13, "code": 0x252, "ip": "here", "frame_sp": forge.USER_STACK, "inner": True}],
        {0x4A: Gate()},
        alone=("long",),
    ),
    "user-reads-of-the-kernel": Case(
        PAGED,
        lambda mode: resume(mode, "user_done") + in_user_mode(touching(KERNEL_PAGE, READ))(mode),
        [{"vector": 14, "code": 5, "cr2": KERNEL_PAGE, "ip": "here", "inner": True}],
    ),
    "user-writes-protected": Case(
        PAGED,
        lambda mode: resume(mode, "user_done") + in_user_mode(touching(USER_READ_ONLY, WRITE))(mode),
        [{"vector": 14, "code": 7, "cr2": USER_READ_ONLY, "ip": "here", "inner": True}],
    ),
    "conforming": Case(
        NARROW,
        in_user_mode("    int 0x48\nconform:\n    int 0x80\nnext:\n"),
        [{"vector": 0x80, "ip": "next", "frame_cs": forge.CONFORMING, "frame_sp": forge.USER_STACK - 12, "inner": True}],
        {0x48: Gate(selector=forge.CONFORMING, dpl=3, to="conform")},
    ),
    "16-bit-gate": Case(
        NARROW,
        plain(NARROW_HANDLER),
        [{"vector": 0x80, "narrow": "return_here"}],
        {0x49: Gate(kind=6, selector=forge.OFFSET_CODE, to="narrow")},
    ),
    "virtual-8086": Case(
        NARROW,
        plain(VM86),
        [{"vector": 3, "ip": 2, "frame_cs": 0x3000, "frame_sp": 0xFF0, "frame_ss": 0x2000, "sp": forge.INNER_STACK - 36}],
        {0x80: Gate(kind=0xF, dpl=3, to="enter_80"), 0x81: Gate(dpl=3, to="enter_81")},
    ),
}
EVERY = [(name, mode) for name, case in CASES.items() for mode in case.modes]


def make(name: str, mode: str) -> forge.Guest:
    case = CASES[name]
    wide = mode == "long"
    body = case.body(mode)
    for name, value in {
        "{si}": "rsi" if wide else "esi",
        "{sp}": "rsp" if wide else "esp",
        "{wide}": "q" if wide else "d",
    }.items():
        body = body.replace(name, value)
    limit = None if case.idt_limit is None else case.idt_limit * (2 if wide else 1)
    return forge.forge(mode, body, case.gates, idt_limit=limit)


def run(elf: bytes, engine: str = "unicorn", limits: Limits = Limits(seconds=20.0)) -> Outcome:  # noqa: B008
    blob = default_blob(BARE)
    with Kernel.from_bytes(elf, "guest") as kernel:
        plan = make_plan(BARE, blob.data, kernel, memory=64 * MIB)
        return boot(plan, blob, get_engine(engine), Until(EXIT), limits)


@pytest.mark.parametrize(("name", "mode"), EVERY)
def test_what_a_handler_finds(name: str, mode: str) -> None:
    guest = make(name, mode)
    outcome = run(guest.elf)
    assert outcome.ok, outcome.run.stop
    found = forge.records(mode, outcome.console)
    assert len(found) == len(CASES[name].records)
    for record, wanted in zip(found, CASES[name].records, strict=True):
        check(record, wanted, guest.labels, mode)


def check(record: forge.Record, wanted: Mapping[str, Any], labels: Mapping[str, int], mode: str) -> None:
    wide = mode == "long"
    fault = record.vector not in (1, 3, 4, 8, 0x80)
    assert bool(record.frame_flags & x86.EFLAGS_RF) == fault
    assert not record.flags & (x86.EFLAGS_RF | x86.EFLAGS_VM | x86.EFLAGS_TF | x86.EFLAGS_NT)
    assert record.cs == (forge.CODE64 if wide else forge.CODE32)
    if not wanted.get("inner") and "sp" not in wanted:
        assert record.ss == forge.DATA32
    for field, value in wanted.items():
        match field:
            case "if":
                assert record.frame_flags & x86.EFLAGS_IF
                assert bool(record.flags & x86.EFLAGS_IF) == value
            case "inner":
                assert record.ss == (0 if wide else forge.DATA32)
                words = (5 if wide or record.code is None else 6) + (wide and record.code is not None)
                assert record.sp == forge.INNER_STACK - words * (8 if wide else 4)
            case "narrow":
                assert record.frame_ss == labels[value] & 0xFFFF | forge.CODE32 << 16
                assert record.frame_sp & 0xFFFF == record.frame_flags & 0xFFFF
            case _:
                assert getattr(record, field) == labels.get(value, value), field


@pytest.mark.parametrize(("name", "mode"), [(name, mode) for name, mode in EVERY if mode not in CASES[name].alone])
@pytest.mark.usefixtures("plain_qemu")
def test_qemu_says_the_same(name: str, mode: str) -> None:
    """QEMU 7.2 leaves RF out of the frame."""
    guest = make(name, mode)
    ours, theirs = run(guest.elf), run(guest.elf, "qemu")
    assert theirs.run.stop.reason == EXIT

    def seen(outcome: Outcome) -> list[forge.Record]:
        found = forge.records(mode, outcome.console)
        return [record._replace(frame_flags=record.frame_flags & ~x86.EFLAGS_RF) for record in found]

    assert seen(ours) == seen(theirs)


ABSENT_GATES = {vector: Gate(present=False) for vector in (0, 6, 8, 11, 13, 14)}
ENDINGS = {
    "divide": (
        ALL,
        "    xor ecx, ecx\nhere:\n    div ecx\n",
        ABSENT_GATES,
        "#DE divide error, and gate 0 of the IDT is not present",
    ),
    "undefined": (ALL, "here:\n    ud2\n", ABSENT_GATES, "#UD invalid opcode, and gate 6 of the IDT is not present"),
    "software": (ALL, "here:\n    int 0x44\n", ABSENT_GATES, "int 0x44, and gate 68 of the IDT is empty"),
    "page": (
        PAGED,
        touching(ABSENT + 4, WRITE),
        ABSENT_GATES,
        f"#PF page fault at {ABSENT + 4:#x} (error code 0x2), and gate 14 of the IDT is not present",
    ),
    "stack": (
        ("long",),
        f"    mov esp, {ABSENT + 0x800}\nhere:\n    ud2\n",
        {},
        f"#UD invalid opcode, and its delivery meets a page fault at {ABSENT + 0x7F8:#x}",
    ),
}


@pytest.mark.parametrize(("name", "mode"), [(name, mode) for name, case in ENDINGS.items() for mode in case[0]])
def test_a_triple_fault_is_told_with_its_beginning(name: str, mode: str) -> None:
    _, body, gates, words = ENDINGS[name]
    guest = forge.forge(mode, body, gates)
    stop = run(guest.elf).run.stop
    assert (stop.reason, stop.detail, stop.rip) == (FAULT, f"{words}: a triple fault", guest.labels["here"])
    if qemu_problem() is None:
        assert run(guest.elf, "qemu").run.stop.reason == FAULT


def test_a_task_gate_is_said_to_be_missing() -> None:
    guest = forge.forge("flat", "here:\n    int 0x44\n", {0x44: Gate(kind=5, selector=forge.TASK)})
    stop = run(guest.elf).run.stop
    assert (stop.reason, stop.rip) == (FAULT, guest.labels["here"])
    assert "task gate" in stop.detail


def test_a_guest_without_an_idt_ends_at_its_first_fault(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """IDTR as reset leaves it leads to zeros; the report names the instruction."""
    (tmp_path / "guest").write_bytes(forge.elf_of({forge.CODE: b"\x90\x0f\x0b"}))
    assert main(["boot", str(tmp_path / "guest"), "--until", "exit"]) == 1
    said = capsys.readouterr().out
    assert "end: fault: #UD invalid opcode, and gate 6 of the IDT is empty: a triple fault" in said
    assert f"  at {forge.CODE + 1:#x}, kernel+0x1\n  the instruction: 0f 0b  ud2\n" in said


@pytest.mark.parametrize(
    "limits", [Limits(seconds=0.5), Limits(instructions=20_000, seconds=0.5)], ids=["time", "instructions"]
)
@pytest.mark.parametrize("handler", ["", ABSENT], ids=["comes-back", "absent"])
def test_a_storm_of_faults_ends_by_the_limits(limits: Limits, handler: str | int) -> None:
    """Each handler returns to where the next fault is, or faults at its own first instruction: then none is ever executed."""
    guest = forge.forge("long", touching(ABSENT, READ), {14: Gate(ist=1, to=handler)})
    outcome = run(guest.elf, limits=limits)
    assert outcome.run.stop.reason == LIMIT
    assert outcome.run.counts["exceptions"] > 10


def test_what_is_delivered_is_counted() -> None:
    outcome = run(forge.forge("flat", "    int3\n" * 5).elf)
    assert outcome.run.counts["exceptions"] == 5
    assert "exceptions" not in run(forge.forge("flat", "").elf).run.counts
    assert outcome.handoff is not None
    assert "exceptions" not in outcome.handoff.counts


REAL_MODE = f"""
.code16
start:
    xor eax, eax
    mov ds, ax
    mov ss, ax
    mov esp, 0x12348000
    mov word ptr [0], offset divided - {LOW}
    mov word ptr [2], 0xf000
    mov word ptr [0x200], offset interrupted - {LOW}
    mov word ptr [0x202], 0xf000
    std
    sti
    int 0x80
after:
    cli
    xor cx, cx
here:
    div cx
there:
    mov al, 0
    mov dx, 0x501
    out dx, al
1:
    hlt
    jmp 1b
divided:
    mov bp, sp
    add word ptr [bp], 2
interrupted:
    mov bp, sp
    pushf
    mov si, sp
    mov cx, 8
    mov dx, 0x3f8
    cld
2:
    lodsb
    out dx, al
    loop 2b
    popf
    iret
"""


def real_mode_rom() -> tuple[bytes, Mapping[str, int]]:
    """REAL_MODE in a ROM of 64 KiB, which lies below 1 MiB too."""
    source = REAL_MODE + f".skip {LOW + 0xFFF0} - .\n    jmp start\n.skip {LOW + 0x10000} - .\n"
    program = assemble([Unit("rom.s", source, LOW)], {})
    return b"".join(data for _, data in program.pieces), program.labels


@pytest.mark.usefixtures("plain_qemu")
def test_real_mode_has_its_vectors() -> None:
    rom, labels = real_mode_rom()
    blob = Blob(rom, *default_blob(MICROVM).description)
    said = []
    for engine in ("unicorn", "qemu"):
        with Kernel.from_bytes(forge.elf_of({forge.CODE: b"\xf4"}), "guest") as kernel:
            plan = make_plan(MICROVM, rom, kernel, memory=64 * MIB)
            outcome = boot(plan, blob, get_engine(engine), Until(EXIT), Limits(seconds=10.0))
        assert outcome.run.stop.reason == EXIT, outcome.run.stop
        said.append(outcome.console)
    words = struct.unpack("<8H", said[0])
    flags, ip, cs, saved = words[:4]
    assert (ip, cs) == (labels["after"] - LOW, 0xF000)
    assert saved & 0x602 == 0x602
    assert flags & 0x602 == 0x402
    assert words[5:7] == (labels["there"] - LOW, 0xF000)
    assert said[0] == said[1]


def test_an_empty_vector_of_real_mode_is_told() -> None:
    """A firmware that goes wrong at its first instructions has no vectors."""
    blob = build(BARE, sources={"realmode.s": asm_source("realmode.s").replace("real_mode:\n", "real_mode:\n    ud2\n", 1)})
    with Kernel.from_bytes(forge.elf_of({forge.CODE: b"\xf4"}), "guest") as kernel:
        plan = make_plan(BARE, blob.data, kernel, memory=64 * MIB)
        stop = boot(plan, blob, get_engine("unicorn"), Until(EXIT), Limits()).run.stop
    assert (stop.reason, stop.detail) == (FAULT, "#UD invalid opcode, and vector 6 of real mode is empty")
    assert stop.rip is not None
    place = blob.locate(stop.rip)
    assert place is not None
    assert place.symbol == "real_mode"


@pytest.mark.parametrize("name", ["vmlinux-6.1", "vmlinux-6.12"])
def test_a_real_kernel_prints_its_banner_and_its_memory_map(guest_file: Any, name: str) -> None:
    with Kernel.open(str(guest_file(name))) as kernel:
        blob = default_blob(BARE)
        plan = make_plan(BARE, blob.data, kernel, memory=5 << 30, cmdline="earlyprintk=ttyS0,115200 console=ttyS0")
        outcome = boot(plan, blob, get_engine("unicorn"), Until(CONSOLE, "last_pfn"), Limits(seconds=120.0))
    said = outcome.console.decode(errors="replace")
    assert outcome.ok, said
    assert f"Linux version {name.removeprefix('vmlinux-')}" in said
    assert outcome.run.counts["exceptions"] >= 1


def test_a_device_writes_where_paging_has_nothing() -> None:
    """DMA goes by physical addresses: that a linear address of that number is not mapped is no page fault, nor the first half
    of a double fault."""
    descriptor = 0x207000
    words = [0x0A, 4, 0, 0x1000000]  # read the item with key 0, 4 bytes, to an address that is mapped for nobody
    swapped = [int.from_bytes(word.to_bytes(4, "big"), "little") for word in (*words, descriptor)]
    body = "".join(f"    mov dword ptr [{descriptor + 4 * at}], {word}\n" for at, word in enumerate(swapped[:4]))
    body += f"    mov edx, {DMA_PORT + 4}\n    mov eax, {swapped[4]}\n    out dx, eax\n"
    body += resume("paged", "after") + touching(ABSENT, READ) + "after:\n"
    blob = default_blob(MICROVM)
    with Kernel.from_bytes(forge.forge("paged", body).elf, "guest") as kernel:
        plan = make_plan(MICROVM, blob.data, kernel, memory=64 * MIB)
        board = Board(plan, plan.memory())
        run = get_engine("unicorn").run(board, Until(EXIT), Limits(), lambda _: None)
    assert run.stop.reason == EXIT
    assert board.memory.read(0x1000000, 4) == b"QEMU"
    assert [record.vector for record in forge.records("paged", bytes(board.console))] == [14]
