"""The state of a CPU in words."""

import pytest
from pvhboot.emu.report.state import bits_text, mode_text, state_text
from pvhboot.loader.memory import GuestMemory
from pvhboot.shim.abi import x86
from pvhboot.shim.abi.x86 import Segment
from pvhboot.shim.machines import MIB, Span

CODE = Segment(0x10, 0, 0xFFFFFFFF, 0xB, True, True, True, False, True)
DATA = Segment(0x18, 0, 0xFFFFFFFF, 0x3, True, True, True, False, True)
REGISTERS = {
    **{name: number for number, name in enumerate(("eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp"), 0xA0)},
    "eip": 0x100000,
    "eflags": 0x246,
    "cr0": 0x11,
    "cr3": 0,
    "cr4": 0,
    "efer": 0,
    "gdtr_base": 0x1000,
    "gdtr_limit": 0x1F,
}
SEGMENTS = {"cs": CODE, **dict.fromkeys(("ds", "es", "ss"), DATA), "tr": x86.RESET_TR}

MODES = [
    ({"cr0": 0x60000010}, x86.RESET_CS, "real mode, CS based at 0xffff0000"),
    ({"cr0": 0x10}, x86.RESET_CS._replace(selector=0, base=0), "real mode"),
    ({}, CODE, "protected mode, 32-bit code, paging off"),
    ({}, x86.RESET_CS, "protected mode, 16-bit code, CS based at 0xffff0000, paging off"),
    ({"cr0": 0x80000011}, CODE, "protected mode, 32-bit code, paging on"),
    ({"cr0": 0x80000011, "efer": 0x500}, CODE._replace(db=False, long=True), "long mode, 64-bit code, paging on"),
    ({"cr0": 0x80000011, "efer": 0x500}, CODE, "long mode, 32-bit code, paging on"),
    ({"eflags": 0x20202}, x86.RESET_CS, "virtual-8086 mode, paging off"),
]


@pytest.mark.parametrize(("registers", "cs", "words"), MODES, ids=[words for _, _, words in MODES])
def test_the_mode(registers, cs, words):
    assert mode_text(REGISTERS | registers, SEGMENTS | {"cs": cs}) == words


def test_bits_have_their_names():
    assert bits_text("cr0", 0x60000011, x86.CR0_NAMES) == "cr0 0x60000011 (PE ET NW CD)"
    assert bits_text("cr4", 0, {}) == "cr4 0x0"


def test_all_of_it():
    memory = GuestMemory([Span("RAM", 0, MIB)], bytes(0x10000))
    for number, value in enumerate((0, 0x0000890000000067, 0x00CF9B000000FFFF, 0)):
        memory.view(0x1000 + 8 * number, 8)[:] = value.to_bytes(8, "little")
    assert state_text(REGISTERS, SEGMENTS, memory) == [
        "protected mode, 32-bit code, paging off",
        "eax 0x000000a0  ebx 0x000000a1  ecx 0x000000a2  edx 0x000000a3",
        "esi 0x000000a4  edi 0x000000a5  ebp 0x000000a6  esp 0x000000a7",
        "eip 0x100000   eflags 0x246 (PF ZF IF)",
        "cr0 0x11 (PE ET)   cr4 0x0   efer 0x0",
        "cs        0x0010  base 0x00000000  limit 0xffffffff  32-bit code, readable",
        "ds es ss  0x0018  base 0x00000000  limit 0xffffffff  32-bit data, writable",
        "tr        0x0000  base 0x00000000  limit 0x0000ffff  never loaded",
        "gdt at 0x1000, limit 0x1f",
        "  0x0008  base 0x00000000  limit 0x00000067  DPL 0  available TSS",
        "  0x0010  base 0x00000000  limit 0xffffffff  DPL 0  32-bit code, readable",
        "  0x0018  empty",
    ]


def test_a_long_table_is_cut():
    memory = GuestMemory([Span("RAM", 0, MIB)], bytes(0x10000))
    lines = state_text(REGISTERS | {"gdtr_limit": 0xFFFF}, SEGMENTS, memory)
    assert "gdt at 0x1000, limit 0xffff; the first 8 descriptors:" in lines
    assert len([line for line in lines if line.endswith("empty")]) == 7  # the null descriptor is not shown


@pytest.mark.parametrize(
    "why", [{"cr0": 0x10}, {"cr0": 0x80000011}, {"gdtr_base": 0x90000000}], ids=["real", "paging", "no memory"]
)
def test_a_table_that_is_not_there_or_not_known_is_not_shown(why):
    memory = GuestMemory([Span("RAM", 0, MIB)], bytes(0x10000))
    assert state_text(REGISTERS | why, SEGMENTS, memory)[-1].startswith("gdt at ")


def test_what_is_not_known_gives_no_line():
    assert state_text({}, {}) == []
    assert state_text({}, SEGMENTS)[0].startswith("cs ")


def test_long_mode_shows_all_registers():
    long = REGISTERS | {f"r{number}": number for number in range(8, 16)} | {"cr0": 0x80000011, "cr3": 0x5000, "efer": 0x500}
    lines = state_text(long, SEGMENTS | {"cs": CODE._replace(long=True, db=False)})
    assert "r12 0x0000000c  r13 0x0000000d  r14 0x0000000e  r15 0x0000000f" in lines
    assert any(line.endswith("efer 0x500 (LME LMA)   cr3 0x5000") for line in lines)


@pytest.mark.parametrize(("code", "letter"), [(CODE._replace(long=True, db=False), "r"), (CODE, "e")])
def test_registers_have_their_names_of_64_bits_in_64_bit_code(code, letter):
    long = REGISTERS | dict.fromkeys((f"r{number}" for number in range(8, 16)), 0) | {"cr0": 0x80000011, "efer": 0x500}
    text = "\n".join(state_text(long, SEGMENTS | {"cs": code}))
    assert f"{letter}cx 0x000000a2" in text
    assert f"\n{letter}ip 0x100000   eflags 0x246" in text
    assert "\nefer" not in text


@pytest.mark.parametrize("kind", [x86.TYPE_TSS32_AVAILABLE, x86.TYPE_TSS32_BUSY])
def test_of_tr_it_is_not_said_whether_it_is_busy(kind):
    """Unicorn's hidden part is that of the descriptor before ltr, KVM's that of behind it."""
    tr = x86.RESET_TR._replace(selector=8, limit=0x67, type=kind)
    assert state_text({}, {"tr": tr}) == ["tr  0x0008  base 0x00000000  limit 0x00000067  TSS"]
