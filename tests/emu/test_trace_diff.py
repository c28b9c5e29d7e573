"""Two traces: the same on Unicorn and KVM, and apart at the instruction that is not."""

from itertools import pairwise

import forge_faults as forge
import pytest
from host import kvm_problem
from pvhboot.emu.effects import Effect
from pvhboot.emu.lab.mutants import MUTANTS
from pvhboot.emu.report.trace_diff_text import comparison_lines
from pvhboot.emu.trace import End, Record, Window
from pvhboot.emu.trace_diff import Trace, compare_effects, compare_traces
from pvhboot.shim.blob import Blob
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE, MACHINES, MICROVM, PC
from pvhboot.shim.stock import default_blob
from traced import complete, trace_of


@pytest.fixture
def kvm():
    if problem := kvm_problem():
        pytest.skip(problem)


def compare_engines(until, kernel=None, **boot):
    """A boot on Unicorn and on KVM."""
    unicorn, kvm = (trace_of(engine, until, kernel, **boot) for engine in ("unicorn", "kvm"))
    comparison = compare_traces(complete(unicorn), complete(kvm, sees_memory=False))
    return comparison, unicorn


@pytest.mark.usefixtures("kvm")
@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_a_boot_is_the_same_on_unicorn_and_kvm(spec):
    comparison, items = compare_engines("handoff", spec=spec)
    assert comparison.divergence is None
    assert comparison.same == len(items) - 1 > 90
    assert [record.text for record in comparison.own] in ([], ["cpuid"])


@pytest.mark.usefixtures("kvm")
def test_qboot_is_the_same_on_unicorn_and_kvm(qboot):
    """It writes what CPUID gives into its MP table, and sums that up."""
    blob = Blob(qboot.read_bytes(), {}, (), {})
    comparison, items = compare_engines("handoff", spec=MICROVM, blob=blob)
    assert comparison.divergence is None
    assert comparison.same == len(items) - 1 > 4000


HOLE = 0xB0000  # no memory on the machine pc, no device
BUFFER = 0x208000

# Accesses to devices by each way, strings up and down, what changes modes and tables, what flags leave undefined, and what
# the processor's own values go into.
FLAT = f"""
    mov edx, 0x402
    mov al, 0x41
    out dx, al
    in al, dx
    out 0x80, al
    in eax, 0x60
    mov esi, {BUFFER}
    mov edi, {BUFFER + 0x100}
    mov ecx, 3
    rep outsb
    mov ecx, 3
    rep insb
    outsb
    insb
    mov ebx, {HOLE}
    mov eax, dword ptr [ebx]
    mov dword ptr [ebx], 0x12345678
    mov dword ptr [ebx + 2], ebx
    mov ecx, 0x1b
    rdmsr
    wrmsr
    xor eax, eax
    cpuid
    mov dword ptr [{BUFFER + 0x200}], ebx
    mov ecx, dword ptr [{BUFFER + 0x201}]
    add ecx, 5
    mov ecx, 7
    sgdt [{BUFFER + 0x300}]
    lgdt [{BUFFER + 0x300}]
    mov eax, ss
    mov ss, eax
    inc ecx
    push eax
    pushfd
    popfd
    pop eax
    mov ecx, 200
    mov edi, {BUFFER + 0x400}
    rep stosd
    std
    mov ecx, 20
    mov esi, {BUFFER + 0x440}
    mov edi, {BUFFER + 0x840}
    rep movsb
    cld
    mov ecx, 20
    mov esi, {BUFFER + 0x440}
    mov edi, {BUFFER + 0x840}
    repe cmpsb
    mov ecx, 0
    rep stosd
    mov eax, 77
    mov ecx, 13
    mul ecx
    adc eax, 0
    shl eax, 3
    mov ecx, 33
    shl eax, cl
    rol eax, 5
    bsf eax, ecx
    bts eax, 4
    imul eax, ecx, 6
    mov cl, 7
    div cl
    shld eax, ecx, 4
    and eax, 0x70
    mov byte ptr [changed + 1], 0x55
changed:
    mov al, 0x44
    mov ecx, 3
again:
    loop again
"""
LONG = f"""
    mov ebx, {HOLE}
    mov rax, qword ptr [rbx]
    movabs rax, 0x123456789abcdef0
    mov qword ptr [rbx], rax
    mov ebx, {BUFFER}
    mov qword ptr [rbx + 3], rax
    mov rcx, qword ptr [rbx + 4]
    mov edx, 0x402
    mov esi, ebx
    mov ecx, 3
    rep outsb
    mov edi, ebx
    mov ecx, 3
    rep insb
    mov eax, ss
    mov ss, eax
    inc r8
    shr rax, 33
    xor eax, eax
    cpuid
    mov r12, rbx
    mov ebx, {BUFFER}
    mov qword ptr [rbx], r12
    push r12
    pop r14
    mov r13, r14
    mov r13d, 5
    add r13, 1
"""


@pytest.mark.usefixtures("kvm")
@pytest.mark.parametrize(("mode", "code"), [("flat", FLAT), ("long", LONG)])
def test_kvm_tells_each_step_whatever_the_instruction(mode, code):
    comparison, items = compare_engines(
        "exit", forge.forge(mode, code).elf, spec=PC, window=Window(begin=frozenset((forge.CODE,)))
    )
    assert comparison.divergence is None, comparison.divergence
    told = [item for item in items if isinstance(item, Record)]
    assert comparison.same == len(told)
    assert len(told) > code.count("\n") - 10
    straight = [pair for pair in pairwise(told) if "j" not in pair[0].text and "loop" not in pair[0].text]
    assert all(after.address == before.address + len(before.code) for before, after in straight)
    assert "cpuid" in [record.text for record in comparison.own]


# They change bytes of the ROM and move none, so that all that is executed before is the same.
IN_PLACE = (
    *("magic-wrong", "version-0", "start-info-in-rom"),
    *("dma-register-not-swapped", "dma-never-started", "file-not-selected", "initrd-size-forgotten"),
)


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_mutant_diverges_at_the_line_that_was_changed(name):
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == name]
    good, bad = build(mutant.machine), build(mutant.machine, sources=mutant.sources())
    assert [line.address for line in good.listing] == [line.address for line in bad.listing]
    changed = {
        f"{line.file}:{line.line}" for line, other in zip(good.listing, bad.listing, strict=True) if line.data != other.data
    }
    comparison = compare_traces(
        *(
            complete(trace_of("unicorn", "handoff", spec=mutant.machine, blob=blob, window=Window(limit=1000)))
            for blob in (good, bad)
        )
    )
    assert changed
    assert comparison.divergence is not None
    assert comparison.divergence.second.place.source in changed
    assert "instruction" in [difference.what for difference in comparison.divergence.differences]


def test_a_table_that_differs_shows_where_it_is_read():
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == "tss-limit-one-short"]
    comparison = compare_traces(
        *(complete(trace_of("unicorn", "handoff", blob=build(BARE, sources=sources))) for sources in (None, mutant.sources()))
    )
    assert comparison.divergence.first.text.startswith("rep movsd")
    assert {difference.what for difference in comparison.divergence.differences} == {"effect"}


def test_accesses_are_compared_whatever_the_instructions_are():
    other = build(MICROVM, sources={"e820.s": asm_source("e820.s").replace("e820_sort:\n", "e820_sort:\n    nop\n", 1)})
    mine, theirs = (
        complete(trace_of("unicorn", "handoff", spec=MICROVM, blob=blob)) for blob in (default_blob(MICROVM), other)
    )
    assert compare_traces(mine, theirs).divergence is not None
    comparison = compare_effects(mine, theirs, ("in", "out", "dma"))
    assert comparison.divergence is None
    assert comparison.same > 10
    bare = complete(trace_of("unicorn", "handoff"))
    (difference,) = compare_effects(mine, bare, ("in", "out")).divergence.differences
    assert (difference.what, difference.first.kind, difference.second) == ("effect", "in", None)


END = End("handoff", "", 0x100000, 0)
CODES = {"mov ecx, eax": b"\x89\xc1", "mov ecx, edx": b"\x89\xd1", "mov byte ptr [8], al": b"\xa2\x08\0\0\0"}


def trace(rows, *, sees_memory=True, chosen=False):
    """Of rows of text, changes and effects."""
    items = []
    for number, (text, changes, *effects) in enumerate(rows, 1):
        before = {"eax": 0, "ecx": 0, "edx": 0, "eflags": 2} if number == 1 else None
        code = CODES.get(text, b"\x90")
        items.append(Record(number, 32, 8, number, number, code, text, None, changes, tuple(effects), 1, before))
    return Trace([*items, END], sees_memory, not chosen)


def told(first, second, ignored=()):
    """What is said to differ."""
    divergence = compare_traces(first, second, ignored).divergence
    return [] if divergence is None else [difference.what for difference in divergence.differences]


AF, ZF = 0x10, 0x40
CASES = [
    ("a register", [("mov eax, 1", {"eax": 1})], [("mov eax, 1", {"eax": 2})], ["eax"]),
    ("a register that only one has changed", [("mov eax, 1", {"eax": 1})], [("mov eax, 1", {})], ["eax"]),
    ("the same value again", [("mov eax, 0", {})], [("mov eax, 0", {"eax": 0})], []),
    ("a flag that is undefined", [("and eax, eax", {"eflags": 2 | AF})], [("and eax, eax", {})], []),
    ("a flag that is defined", [("and eax, eax", {"eflags": 2 | ZF})], [("and eax, eax", {})], ["eflags"]),
    (
        "a flag that is defined again, and stays",
        [("and eax, eax", {"eflags": 2 | AF}), ("add eax, eax", {})],
        [("and eax, eax", {}), ("add eax, eax", {})],
        ["eflags"],
    ),
    ("cpuid", [("cpuid", {"eax": 5})], [("cpuid", {"eax": 6})], []),
    (
        "what goes on from cpuid",
        [("cpuid", {"eax": 5}), ("mov ecx, eax", {"ecx": 5}), ("nop", {})],
        [("cpuid", {"eax": 6}), ("mov ecx, eax", {"ecx": 6}), ("nop", {})],
        [],
    ),
    (
        "what does not come from cpuid",
        [("cpuid", {"eax": 5}), ("mov ecx, edx", {"ecx": 5})],
        [("cpuid", {"eax": 6}), ("mov ecx, edx", {"ecx": 6})],
        ["ecx"],
    ),
    (
        "what comes from cpuid through memory",
        [
            ("cpuid", {"eax": 5}),
            ("mov byte ptr [8], al", {}, Effect("store", 8, 1, 5)),
            ("mov ecx, edx", {"ecx": 5}, Effect("load", 8, 1, 5)),
        ],
        [
            ("cpuid", {"eax": 6}),
            ("mov byte ptr [8], al", {}, Effect("store", 8, 1, 6)),
            ("mov ecx, edx", {"ecx": 6}, Effect("load", 8, 1, 6)),
        ],
        [],
    ),
    (
        "what is the same again after cpuid",
        [("cpuid", {"eax": 5}), ("mov eax, 1", {"eax": 1}), ("mov ecx, eax", {"ecx": 1})],
        [("cpuid", {"eax": 6}), ("mov eax, 1", {"eax": 1}), ("mov ecx, eax", {"ecx": 2})],
        ["ecx"],
    ),
    ("a store", [("x", {}, Effect("store", 1, 1, 1))], [("x", {}, Effect("store", 1, 1, 2))], ["effect"]),
    ("one that is not there", [("x", {}, Effect("out", 1, 1, 1))], [("x", {})], ["effect"]),
    (
        "an access that one engine splits",
        [("x", {}, Effect("read", 8, 4, 0x11223344), Effect("read", 12, 4, 0x55667788))],
        [("x", {}, Effect("read", 8, 8, 0x5566778811223344))],
        [],
    ),
    ("an end", [("x", {}), ("y", {})], [("x", {})], ["end"]),
]


@pytest.mark.parametrize(("first", "second", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_differs(first, second, expected):
    assert told(trace(first), trace(second)) == expected
    assert told(trace(second), trace(first)) == expected


ENDS = [
    (End("exit", "a", 5, 1), End("exit", "b", 6, 1), True),  # one engine names the place before the access, one that behind it
    (End("exit", "", 5, 1), End("halt", "", 5, 1), False),
    (End("fault", "a", 5, 1), End("fault", "b", 5, 1), True),
    (End("fault", "", 5, 1), End("fault", "", None, 1), True),
    (End("fault", "", 5, 1), End("fault", "", 6, 1), False),
]


@pytest.mark.parametrize(("first", "second", "same"), ENDS)
def test_ends_are_the_same_by_their_reason(first, second, same):
    comparison = compare_traces(Trace([first], True, True), Trace([second], True, True))
    assert (comparison.divergence is None) == same


def test_ends_that_differ_are_told_apart():
    ends = [End("fault", "the same", address, 1) for address in (5, 6)]
    comparison = compare_traces(*(Trace([end], True, True) for end in ends))
    lines = comparison_lines(comparison, of_accesses=False)
    assert lines[-2:] == [
        "  end            first   fault: the same, at 0x5",
        "                 second  fault: the same, at 0x6",
    ]


def test_the_same_accesses_to_another_end_are_not_the_same():
    out = ("x", {}, Effect("out", 1, 1, 1))
    first, second = trace([out]), trace([out, ("y", {})])
    assert compare_effects(first, second, ["out"]).divergence is None
    second.items[-1] = End("fault", "", 5, 0)
    comparison = compare_effects(first, second, ["out"])
    assert [difference.what for difference in comparison.divergence.differences] == ["end"]
    assert comparison.same == 1


def test_what_is_ignored_or_was_not_seen_is_not_compared():
    first, second = [("x", {"eax": 1}, Effect("store", 1, 1, 1))], [("x", {"eax": 2}, Effect("store", 1, 1, 2))]
    assert told(trace(first), trace(second), ["eax"]) == ["effect"]
    assert told(trace(first), trace(second, sees_memory=False)) == ["eax"]


def test_of_chosen_records_only_what_both_have_changed_is_compared():
    first, second = [("x", {"eax": 1, "ecx": 1})], [("x", {"ecx": 1})]
    assert told(trace(first), trace(second)) == ["eax"]
    assert told(trace(first, chosen=True), trace(second, chosen=True)) == []


def test_of_chosen_records_flags_that_they_do_not_set_are_not_compared():
    """What was left out may have made them undefined, or has shifted by another count."""
    first, second = [("stc", {"eflags": 3 | AF})], [("stc", {"eflags": 3})]
    assert told(trace(first), trace(second)) == ["eflags"]
    assert told(trace(first, chosen=True), trace(second, chosen=True)) == []
    assert told(trace([("stc", {"eflags": 2})], chosen=True), trace([("stc", {"eflags": 3 | AF})], chosen=True)) == ["eflags"]


def test_own_values_in_all_of_memory_are_soon_told():
    """A hostile trace, or one that clears a large memory."""
    whole = Effect("store", 0, 8, None, "", 1 << 60, "00")
    rows = [("cpuid", {"eax": 5}), ("mov byte ptr [8], al", {}, whole), ("nop", {}, Effect("store", 4, 4, 0))]
    reads = ("mov ecx, edx", {"ecx": 5}, Effect("load", 3, 1, 5)), ("x", {"edx": 7}, Effect("load", 4, 4, 5))
    others = ("mov ecx, edx", {"ecx": 6}, Effect("load", 3, 1, 6)), ("x", {"edx": 8}, Effect("load", 4, 4, 5))
    first, second = ([*rows, *more] for more in (reads, others))
    second[0] = ("cpuid", {"eax": 6})
    comparison = compare_traces(trace(first), trace(second))
    assert comparison.same == 4


def test_the_state_before_the_first_instruction_is_compared():
    first, second = trace([("x", {})]), trace([("x", {})])
    second.items[0] = second.items[0]._replace(before={"eax": 7})
    assert told(first, second) == ["eax before"]


def test_what_was_the_same_is_counted_and_its_end_shown():
    rows = [("x", {}) for _ in range(9)]
    comparison = compare_traces(trace([*rows, ("y", {"eax": 1})]), trace([*rows, ("y", {"eax": 2})]))
    assert comparison.same == 9
    assert [record.number for record in comparison.before] == [5, 6, 7, 8, 9]
    assert not comparison.own_reached
