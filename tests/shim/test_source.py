"""Source text to statements: comments, quotes, labels, directives, macros and conditions."""

import pytest
from pvhboot.shim.assembler import assemble
from pvhboot.shim.errors import AssemblyError
from pvhboot.shim.source import Unit, expand, split_list, strip_comment


def code(text, **symbols):
    """The bytes of 32-bit code at 0x1000."""
    pieces = assemble([Unit("f.s", f".code32\n{text}", 0x1000)], symbols).pieces
    return b"".join(data for _, data in pieces)


def refused(text, **symbols):
    """The message about a text whose first line has the number 2."""
    with pytest.raises(AssemblyError) as caught:
        code(text, **symbols)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("nop # it's", "nop"),
        ("nop // x", "nop"),
        ("# nop", ""),
        ("  // nop", ""),
        ("mov al, '#'", "mov al, '#'"),
        ("mov al, '#' # '#'", "mov al, '#'"),
        (r"mov al, '\'' # x", r"mov al, '\''"),
        (r"mov al, '\\' # x", r"mov al, '\\'"),
        ("mov al, '\"' # \"", "mov al, '\"'"),
        ('.ascii "a # b" # c', '.ascii "a # b"'),
        ('.ascii "a // b" // c', '.ascii "a // b"'),
        (r'.ascii "a \" # b" # c', r'.ascii "a \" # b"'),
        (".long 6 / 2", ".long 6 / 2"),
        ("nop\r", "nop"),
        ("nop \t ", "nop"),
    ],
)
def test_strip_comment(line, left):
    assert strip_comment(line) == left


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a, b", ["a", "b"]),
        ("[a, b], c", ["[a, b]", "c"]),
        ("(a, b), c", ["(a, b)", "c"]),
        ("',', b", ["','", "b"]),
        (r"'\'', b", [r"'\''", "b"]),
        ('"a,b", "c"', ['"a,b"', '"c"']),
        (r'"a\",b", c', [r'"a\",b"', "c"]),
        ("a,", ["a", ""]),
        ("", [""]),
    ],
)
def test_split_list(text, parts):
    assert split_list(text) == parts


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (".byte 1, -1, 0xff, 'A'", b"\x01\xff\xffA"),
        (".byte\t1,\t2", b"\x01\x02"),
        ("\t.word 15", b"\x0f\x00"),
        (".short -2", b"\xfe\xff"),
        (".2byte 0x1234", b"\x34\x12"),
        (".long 10", b"\x0a\x00\x00\x00"),
        (".int 1\n.4byte 2", b"\x01\x00\x00\x00\x02\x00\x00\x00"),
        (".quad 0x0102030405060708", b"\x08\x07\x06\x05\x04\x03\x02\x01"),
        (".8byte -1", b"\xff" * 8),
        ('.ascii "a", "b"', b"ab"),
        ('.asciz "a", "b"', b"a\0b\0"),
        ('.string "a,b"', b"a,b\0"),
        ('.ascii ""', b""),
        ('.ascii "a\tb"', b"a\tb"),  # a literal tab
        ('.ascii "é"', "é".encode()),
        (".skip 3", b"\0\0\0"),
        (".zero 2\n.space 1, 7", b"\0\0\7"),
        (".skip 2, 0xcc", b"\xcc\xcc"),
        (".BYTE 1", b"\x01"),
        ("NOP", b"\x90"),
        ("nop\r\nnop\r\n", b"\x90\x90"),
        ("a: b: nop", b"\x90"),
        ("a:nop", b"\x90"),
        ("a :\tnop", b"\x90"),
        ("rep\tstosd", b"\xf3\xab"),
        ("rep   stosd", b"\xf3\xab"),
        ("mov\teax,\tebx", b"\x89\xd8"),
    ],
)
def test_statement(text, data):
    assert code(text) == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".error", "unknown directive .error"),
        ('.include "x.s"', "unknown directive .include"),
        (".section .data", "unknown directive .section"),
        (".text", "unknown directive .text"),
        (".org 5", "unknown directive .org"),
        (".align 4", "unknown directive .align"),
        (".fill 3, 1, 0", "unknown directive .fill"),
        (".intel_syntax noprefix", "unknown directive .intel_syntax"),
        (".elseif 1", "unknown directive .elseif"),
        ("nop ; nop", "`;` is neither"),
        ("; nop", "`;` is neither"),
        ('.ascii "a" ; nop', "takes strings"),
        (".ascii a", "takes strings"),
        ('.ascii "a" "b"', "takes strings"),
        (r'.ascii "a\"', "takes strings"),
        (r'.ascii "\q"', "unknown escape"),
        (".byte", "takes 1 to 4096 values"),
        (".byte 1,,2", "an expression is missing"),
        (".skip", "takes 1 to 2 values"),
        (".skip 1, 2, 3", "takes 1 to 2 values"),
        (".code32 nop", ".code32 takes nothing behind it: 'nop'"),
        (".equ A", "an expression is missing"),
        (".equ 5, 5", ".equ takes a name and a value"),
        (".equ A B, 5", ".equ takes a name and a value"),
        ("A = 5", "cannot read '= 5'"),
        ("db 5", "f.s:2: db is NASM's: write .byte for numbers, .ascii or .asciz for text"),
        ('text: DB "hi", 0', "DB is NASM's: write .byte"),
        ("dd 5", "dd is NASM's: write .long"),
        ("mov $0x3f8, %edx", "'$0x3f8' is AT&T syntax: write Intel's, the destination first, as in mov edx, 0x3f8"),
        ("mov %eax, %ebx", "'%eax' is AT&T syntax"),
        ("mov $text, %esi", "'%esi' is AT&T syntax"),
        ("movl 8(%ebp), %eax", "'8(%ebp)' is AT&T syntax"),
        ("push $-1", "'$-1' is AT&T syntax"),
        ("$x", "cannot read the instruction"),
        ("eax: nop", "eax cannot be the name of a label"),
        (".: nop", ". cannot be the name of a label"),
        (".equ ., 5", ". cannot be the name of a label"),
        ("mov eax, $", "$ is not defined"),
        ("mov eax, 1 2", "unexpected '2'"),
        ("nop" + " " * 5000 + "5", "more than 4096 characters"),
        (".if", "an expression is missing"),
        (".else", ".else without .if"),
        (".endif", ".endif without .if"),
        (".endm", "unknown directive .endm"),
    ],
)
def test_refused(text, message):
    assert refused(text).startswith("f.s:2: ")
    assert message in refused(text)


def test_no_mode_no_instruction():
    with pytest.raises(AssemblyError, match=r"^f\.s:1: say \.code16, \.code32 or \.code64 before"):
        assemble([Unit("f.s", "nop", 0)], {})


def test_mode_goes_on_into_the_next_file_and_macros_too():
    units = [Unit("a.s", ".code16\n.macro M\nmov eax, 1\n.endm", 0), Unit("b.s", "M")]
    assert assemble(units, {}).pieces[0][1] == b"\x66\xb8\x01\0\0\0"


# Conditions.


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (".if 1\n.byte 1\n.endif", b"\1"),
        (".if 0\n.byte 1\n.endif", b""),
        (".if\tV == 5\t# x\n.byte 1\n.else\n.byte 2\n.endif\n.byte 3", b"\1\3"),
        (".if V > 5\n.byte 1\n.else\n.byte 2\n.endif", b"\2"),
        (".equ A, V - 5\n.if A\n.byte 1\n.endif", b""),
        (".ifdef V\n.byte 1\n.endif\n.ifndef V\n.byte 2\n.endif", b"\1"),
        (".ifdef NONE\n.byte 1\n.endif\n.ifndef NONE\n.byte 2\n.endif", b"\2"),
        (".if 0\n.if 1\n.byte 1\n.else\n.byte 2\n.endif\n.else\n.byte 3\n.endif", b"\3"),
        (".if 1\n.if 0\n.byte 1\n.else\n.byte 2\n.endif\n.else\n.byte 3\n.endif", b"\2"),
        ('.if 0\n.if\tNONE\n.endif\nthis is not read ;;; "\n.error\n.endif', b""),
        (".IF 1\n.byte 1\n.ENDIF", b"\1"),
        (".if 0\n.macro M\n.byte 1\n.endm\n.endif\n.macro M\n.byte 2\n.endm\nM", b"\2"),
    ],
)
def test_condition(text, data):
    assert code(text, V=5) == data


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (".if NONE\n.endif", 2, ".if needs constants: NONE is none"),
        ("a: nop\n.if a\n.endif", 3, ".if needs constants: a is none"),
        ("nop\n.if 1\nnop", 3, ".if without .endif"),
        (".if 1\n.else\n.else\n.endif", 4, "a second .else"),
        (".if 0\n.elseif 1\n.endif", 3, "unknown directive .elseif"),
        (".if 0\n.ifeq 1\n.endif\n.endif", 3, "unknown directive .ifeq"),
        (".if 1\n.endif x", 3, ".endif takes nothing behind it"),
        (".if 1\n.else 1\n.endif", 3, ".else takes nothing behind it"),
        (".ifdef A B\n.endif", 2, ".ifdef takes a name"),
        (".ifndef\n.endif", 2, ".ifndef takes a name"),
        (".if 1 / 0\n.endif", 2, "division by zero"),
        (".if 1 ; x\n.endif", 2, "cannot read '; x'"),
    ],
)
def test_wrong_condition(text, line, message):
    assert refused(text).startswith(f"f.s:{line}: {message}")


def test_conditions_end_with_their_file():
    with pytest.raises(AssemblyError, match=r"^a\.s:1: \.if without \.endif"):
        assemble([Unit("a.s", ".if 1", 0), Unit("b.s", ".endif")], {})


# Macros.


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (".macro M\n.byte 1\n.endm\nM\nM", b"\1\1"),
        (".macro M a\n.byte \\a\n.endm\nM 1\nM 2 + 3", b"\1\5"),
        (".macro M a, b\n.byte \\b, \\a\n.endm\nM 1, 2", b"\2\1"),
        (".macro M a b\n.byte \\b, \\a\n.endm\nM 1, 2", b"\2\1"),
        (".macro\tM\ta\n.byte \\a\n.endm\nM\t7", b"\7"),
        (".macro M a\nmov eax, \\a\n.endm\nM [ebx]", b"\x8b\x03"),
        (".macro M a\n.byte \\a\n.endm\nM ','", b","),
        (".macro M a\n.equ V_\\a, 5\n.byte V_\\a\n.endm\nM x", b"\5"),
        (".macro A x\n.byte \\x\n.endm\n.macro B y\nA \\y\nA \\y + 1\n.endm\nB 1", b"\1\2"),
        (".macro M n\n.if \\n\n.byte \\n\nM \\n - 1\n.endif\n.endm\nM 3", b"\3\2\1"),
        (".macro M # a comment\nnop # another\n.endm # a third\nM # a fourth", b"\x90"),
        (".macro M\n1: jmp 1b\n.endm\nM\nM", b"\xeb\xfe\xeb\xfe"),
    ],
)
def test_macro(text, data):
    assert code(text) == data


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (".macro M a\n.endm\nM", 4, "M takes 1 arguments, not 0"),
        (".macro M a\n.endm\nM 1, 2", 4, "M takes 1 arguments, not 2"),
        (".macro M\n.endm\nM 1", 4, "M takes 0 arguments, not 1"),
        (".macro M\n.byte \\a\n.endm\nM", 5, "macro M has no parameter a"),
        (".macro M\nM\n.endm\nM", 5, "macro M: more than 32 calls inside each other"),
        (".macro A\nB\n.endm\n.macro B\nA\n.endm\nA", 8, "macro A: more than 32 calls"),
        (".macro M a\nM \\a\\a\n.endm\nM 12345678", 5, "more than 200000 lines"),
        (".macro M\nnop", 2, ".macro without .endm"),
        (".macro M\n.macro N\n.endm\n.endm", 3, "a macro cannot be defined in another"),
        (".macro", 2, ".macro needs a name"),
        (".macro 5", 2, ".macro needs a name"),
        (".macro M\n.endm\n.macro M\n.endm", 4, "the macro M is defined twice"),
        (".macro M a=1\n.endm", 2, ".macro M takes plain parameter names"),
        (".macro M a, a\n.endm", 2, ".macro M takes plain parameter names"),
        (".macro M\n.endm M", 3, ".endm takes nothing behind it"),
        (".macro M\nnop\nbogus\n.endm\nnop\nM", 7, "'bogus' cannot be assembled"),
        (".macro M\n.if 1\n.endm\nM", 5, ".if without .endif"),
    ],
)
def test_wrong_macro(text, line, message):
    """The line is that of the call: that is where a reader looks first."""
    assert refused(text).startswith(f"f.s:{line}: {message}")


def test_macros_that_call_each_other_without_end_in_sight_are_bounded():
    text = ".macro M0\n.endm\n" + "".join(f".macro M{n}\nM{n - 1}\nM{n - 1}\n.endm\n" for n in range(1, 31)) + "M30"
    assert "more than 200000 lines, macros included" in refused(text)


def test_statements_are_bounded():
    text = ".macro M\n" + "nop\n" * 1000 + ".endm\n" + "M\n" * 101
    with pytest.raises(AssemblyError, match="more than 100000 statements"):
        expand([Unit("f.s", text)], {})


def test_a_label_in_a_macro_called_twice_is_defined_twice():
    assert refused(".macro M\nx: nop\n.endm\nM\nM") == "f.s:6: x is defined twice"
