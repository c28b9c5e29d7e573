"""Operands: read from the source, resolved, and written in the one spelling that Keystone reads right."""

import pytest
from pvhboot.shim.operands import Immediate, Memory, Register, SourceImmediate, SourceMemory, parse, render, resolve


def resolved(text, **symbols):
    return resolve(parse(text), lambda expression: expression.evaluate(symbols.__getitem__))


@pytest.mark.parametrize("text", ["eax", "EAX", " al ", "cr0", "es", "r8d", "dr7"])
def test_register(text):
    assert parse(text) == Register(text.strip().lower())


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("-1", -1), ("A + 2", 7), ("offset A", 5), ("OFFSET A+1", 6)])
def test_immediate(text, value):
    assert resolved(text, A=5) == Immediate(value)


def test_offset_is_remembered():
    assert isinstance(operand := parse("offset A"), SourceImmediate)
    assert operand.is_offset
    assert not parse("A").is_offset


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("[ebx]", (None, None, "ebx", None, 1, 0)),
        ("dword ptr [ebx + 4]", (4, None, "ebx", None, 1, 4)),
        ("BYTE  PTR [EBX-4]", (1, None, "ebx", None, 1, -4)),
        ("word ptr [5]", (2, None, None, None, 1, 5)),
        ("fword ptr [5]", (6, None, None, None, 1, 5)),
        ("qword ptr [5]", (8, None, None, None, 1, 5)),
        ("es:[edi]", (None, "es", "edi", None, 1, 0)),
        ("dword ptr FS : [0x10]", (4, "fs", None, None, 1, 16)),
        ("[ebx + ecx*4 + 8]", (None, None, "ebx", "ecx", 4, 8)),
        ("[4*ecx + ebx]", (None, None, "ebx", "ecx", 4, 0)),
        ("[8 + ecx * 8]", (None, None, None, "ecx", 8, 8)),
        ("[ebx + ecx]", (None, None, "ebx", "ecx", 1, 0)),
        ("[ebx + esp]", (None, None, "esp", "ebx", 1, 0)),
        ("[esp + ebx]", (None, None, "esp", "ebx", 1, 0)),
        ("[A + B]", (None, None, None, None, 1, 42)),
        ("[ebx + A + B]", (None, None, "ebx", None, 1, 42)),
        ("[A - B]", (None, None, None, None, 1, 38)),
        ("[A - B + ebx - 1]", (None, None, "ebx", None, 1, 37)),
        ("[ebx - (A - B)]", (None, None, "ebx", None, 1, -38)),
        ("[ebx + A*B]", (None, None, "ebx", None, 1, 80)),
        ("[-4 + ebx]", (None, None, "ebx", None, 1, -4)),
        ("[ebx + -4]", (None, None, "ebx", None, 1, -4)),
        ("[ebx - -4]", (None, None, "ebx", None, 1, 4)),
    ],
)
def test_memory(text, memory):
    assert resolved(text, A=40, B=2) == Memory(*memory)


def test_memory_without_displacement_needs_no_evaluation():
    assert parse("[ebx]") == SourceMemory(Memory(None, None, "ebx", None, 1, 0), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a term is missing"),
        ("[ebx +]", "a term is missing"),
        ("[ebx + ecx + edx]", "too many registers"),
        ("[ebx*2 + ecx*2]", "one index register"),
        ("[ebx*3]", "times 1, 2, 4 or 8"),
        ("[ebx*ecx]", "times 1, 2, 4 or 8"),
        ("[-ebx]", "cannot be subtracted"),
        ("[5 - ebx]", "cannot be subtracted"),
        ("dword [ebx]", r"write e\.g\. dword ptr \[ebx \+ 4\]"),
        ("4[ebx]", "cannot read the memory operand"),
        ("xmmword ptr [ebx]", "cannot read the memory operand"),
        ("short x", "without short"),
        ("near ptr x", "without near"),
        ("far ptr x", "without far"),
        ("dword ptr x", "a size goes with a memory operand in brackets"),
        ("byte 5", "a size goes with a memory operand in brackets"),
        ("", "an expression is missing"),
    ],
)
def test_refused(text, message):
    with pytest.raises(ValueError, match=message):
        resolved(text)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("EAX", "eax"),
        ("10", "0xa"),
        ("-10", "-0xa"),
        ("[ebx]", "[ebx]"),
        ("dword ptr es:[ebx + ecx*4 - 10]", "dword ptr es:[ebx + ecx*4 - 0xa]"),
        ("byte ptr [010 - 010 + 0x10]", None),
        ("[0]", "[0x0]"),
        ("[16]", "[0x10]"),
        ("[-4]", "[-0x4]"),
    ],
)
def test_render_writes_every_number_in_hexadecimal(text, rendered):
    if rendered is None:
        with pytest.raises(ValueError, match="'010' is no number"):
            resolved(text)
    else:
        assert render(resolved(text)) == rendered


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("[ebx]", None),
        ("ds:[ebx]", None),
        ("ss:[ebx]", "ss"),
        ("ds:[ebp]", "ds"),
        ("ss:[ebp]", None),
        ("ss:[esp + ebx]", None),
        ("ds:[ebx + ebp]", None),
        ("ss:[ebx + ebp]", "ss"),
        ("ds:[si + bp]", "ds"),
        ("ss:[bp]", None),
        ("ds:[0x10]", None),
        ("cs:[ebp]", "cs"),
        ("es:[edi]", "es"),
    ],
)
def test_only_another_segment_than_the_implied_one_is_explicit(text, segment):
    assert resolved(text).explicit_segment == segment
