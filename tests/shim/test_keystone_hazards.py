"""What Keystone gets wrong in silence, a row of its table each: our front end gives the right bytes or a clear error.

Measured with keystone-engine 0.9.2. Each error names file and line; none of these may ever give wrong bytes.
"""

import pytest
from pvhboot.shim.assembler import assemble
from pvhboot.shim.errors import AssemblyError
from pvhboot.shim.source import Unit

SYMBOLS = {"SYM_A": 0x100, "SYM_B": 0x23}


def code(mode, text):
    """The bytes of `text`, whose first line has the number 2, at 0x1000."""
    pieces = assemble([Unit("f.s", f".code{mode}\n{text}", 0x1000)], SYMBOLS).pieces
    return b"".join(data for _, data in pieces).hex(" ")


RIGHT = [
    # Decimal numbers read as hexadecimal.
    (32, "mov ax, 10", "66 b8 0a 00"),
    (32, "mov eax, 15", "b8 0f 00 00 00"),
    (32, "add eax, 99", "83 c0 63"),
    (32, ".word 15", "0f 00"),
    (32, ".long 10", "0a 00 00 00"),
    (32, "mov eax, [ebx + 10]", "8b 43 0a"),
    # Sums that keep only the last symbol.
    (32, "mov eax, [SYM_A + SYM_B]", "a1 23 01 00 00"),
    (32, "mov eax, [ebx + SYM_A + SYM_B]", "8b 83 23 01 00 00"),
    (32, "mov eax, [SYM_A - SYM_B]", "a1 dd 00 00 00"),
    (32, "mov eax, SYM_A + SYM_B", "b8 23 01 00 00"),
    # lgdt and lidt with a 24-bit base; no spelling for 32 bits in 16-bit code.
    (32, "lgdt [0x1234]", "0f 01 15 34 12 00 00"),
    (32, "lidt [ebx + 4]", "0f 01 5b 04"),
    (32, "sgdt [ebx]", "0f 01 03"),
    (16, "lgdtd [0x1234]", "66 0f 01 16 34 12"),
    (16, "lidtd cs:[0x1234]", "2e 66 0f 01 1e 34 12"),
    # Far jumps with the offset cut to 16 bits.
    (32, "ljmp 8, 0x12345678", "ea 78 56 34 12 08 00"),
    (32, "lcall 8, 0x12345678", "9a 78 56 34 12 08 00"),
    (16, "ljmp 8, 0x1234", "ea 34 12 08 00"),
    (16, "data32 ljmp 8, 0x12345678", "66 ea 78 56 34 12 08 00"),
    # 32-bit forms in 16-bit code.
    (16, "call a\na:", "e8 00 00"),
    (16, "ret", "c3"),
    (16, "ret 4", "c2 04 00"),
    (16, "retf", "cb"),
    (16, "push 5", "6a 05"),
    (16, "push 0x1234", "68 34 12"),
    (16, "push fs", "0f a0"),
    (16, "pop gs", "0f a9"),
    (16, "jmp a\n.skip 200\na:", "e9 c8 00" + " 00" * 200),
    (16, "je a\n.skip 200\na:", "0f 84 c8 00" + " 00" * 200),
    # And the other way round: 16-bit forms in 32-bit code.
    (32, "push ds", "1e"),
    (32, "pop es", "07"),
    (32, "pushf", "9c"),
    (32, "popf", "9d"),
    # iret with the wrong size.
    (16, "iret", "cf"),
    (32, "iret", "cf"),
    (32, "iretd", "cf"),
    (64, "iretq", "48 cf"),
    # Refused string instructions.
    (32, "movsd", "a5"),
    (32, "rep movsd", "f3 a5"),
    (16, "rep movsd", "66 f3 a5"),
    (32, "rep stosw", "66 f3 ab"),
    # A segment override that it drops, and lock, which it refuses.
    (32, "mov eax, ds:[ebp]", "3e 8b 45 00"),
    (32, "lock inc dword ptr [ebx]", "f0 ff 03"),
    # Numeric labels; comments; a hash in quotes.
    (32, "1: jmp 1b", "eb fe"),
    (32, "nop # a comment", "90"),
    (32, "nop // a comment", "90"),
    (32, "mov al, '#' # '", "b0 23"),
    # Alignment in code pads with multi-byte NOPs there: with what is asked for, or zeros, here.
    (32, "nop\n.balign 4", "90 00 00 00"),
    (32, "nop\n.balign 4, 0x90", "90 90 90 90"),
    # Lengths from labels, which hang it.
    (32, ".skip b - a, 0xcc\na: nop\nnop\nb:", "cc cc 90 90"),
]

REFUSED = [
    (32, "mov ax, 010", "'010' is no number"),
    (32, ".word 010", "'010' is no number"),
    (32, "mov eax, 10h", "'10h' is no number"),
    (32, "mov eax, 0AH", "'0AH' is no number"),
    # Truncated immediates and displacements.
    (32, "mov al, 0x1234", "0x1234 does not fit into 1 byte"),
    (32, "mov ax, 0x12345", "0x12345 does not fit into 2 bytes"),
    (32, "mov eax, 0x123456789", "does not fit into 4 bytes"),
    (32, "mov al, -129", "-0x81 does not fit into 1 byte"),
    (32, "mov byte ptr [ebx], 0x100", "0x100 does not fit into 1 byte"),
    (32, "cmp word ptr [ebx], 0x12345", "does not fit into 2 bytes"),
    (32, "imul ax, cx, 0x12345", "does not fit into 2 bytes"),
    (32, "in al, 0x1ff", "does not fit into 1 byte"),
    (32, "out 0x180, al", "cannot be assembled"),
    (32, "int 0x180", "cannot be assembled"),
    (32, "shl eax, 0x120", "cannot be assembled"),
    (32, "bt eax, 0x120", "cannot be assembled"),
    (32, "ret 0x12345", "at most 0xffff"),
    (32, "ret -1", "at most 0xffff"),
    (32, "enter 0x12345, 0", "0x12345"),
    (32, "push 0x123456789", "does not fit into 4 bytes"),
    (16, "push 0x12345", "does not fit into 2 bytes"),
    (16, "mov ax, [bx + 0x12345]", "does not fit into 2 bytes"),
    (32, "mov eax, [0x123456789]", "0x123456789"),
    (32, "mov eax, [ebx + 0x123456789]", "0x123456789"),
    (16, "ljmp 8, 0x12345", "does not fit into 2 bytes"),
    (16, "lcall 8, 0x12345", "does not fit into 2 bytes"),
    (32, "ljmp 0x12345, 0", "does not fit into 2 bytes"),
    (16, "lgdt [bx]", "24 bits of the base only: write lgdtd"),
    (32, "ljmp 8:0x1000", "cannot read ':0x1000'"),
    (32, "jmp dword 8:5", "a size goes with a memory operand"),
    (64, "ljmp 8, 0", "in 16- and 32-bit code"),
    # A label that becomes an immediate, and the size without ptr that drops the whole program.
    (32, "mov eax, dword ptr a\na:", "a size goes with a memory operand in brackets"),
    (32, "mov eax, a\na:", "write `offset a`"),
    (32, "mov eax, dword [ebx]", "write e.g. dword ptr [ebx + 4]"),
    (32, "mov eax, [", "cannot read the memory operand"),
    # Out of range, and in silence.
    (32, "loop a\n.skip 200\na:", "loop reaches 128 bytes back and 127 ahead"),
    (32, ".byte b - a\na: .skip 300\nb:", "0x12c does not fit into 1 byte"),
    (32, ".word 0x12345", "0x12345 does not fit into 2 bytes"),
    # Ignored directives, and those that kill or hang the process.
    (32, ".error", "unknown directive .error"),
    (32, '.error "no"', "unknown directive .error"),
    (32, '.include "missing.s"', "unknown directive .include"),
    (32, ".if UNDEFINED\n.endif", ".if needs constants: UNDEFINED"),
    (32, ".section .data", "unknown directive .section"),
    (32, ".text", "unknown directive .text"),
    (32, ".data", "unknown directive .data"),
    (32, ".fill b - a\na: b:", "unknown directive .fill"),
    (32, "%define X 1", "cannot read the instruction '%define'"),
    (32, "LOCAL a", "a is not defined"),
    # A semicolon that starts another instruction.
    (32, "mov eax, 1 ; mov ebx, 2", "`;` is neither"),
    (32, "nop ; a comment", "`;` is neither"),
    # Dead expressions, and other assemblers' spellings.
    (32, "mov eax, 5 6", "unexpected '6'"),
    (32, "mov eax, 5 +", "ends too early"),
    (32, "mov eax, $", "$ is not defined"),
    (32, "db 5", "NASM"),
    (32, "dw 5", "NASM"),
    (32, "mov eax, %ebx", "AT&T syntax"),
    (32, "movl $5, %eax", "AT&T syntax"),
    (32, "ljmpl 8, 0", "cannot be assembled"),
    (32, "nothing", "cannot be assembled"),
    (32, "nop eax", "nop takes no operand"),
]


@pytest.mark.parametrize(("mode", "text", "data"), RIGHT, ids=[f"{mode}: {text}" for mode, text, _ in RIGHT])
def test_right(mode, text, data):
    assert code(mode, text) == data


@pytest.mark.parametrize(("mode", "text", "message"), REFUSED, ids=[f"{mode}: {text}" for mode, text, _ in REFUSED])
def test_refused(mode, text, message):
    with pytest.raises(AssemblyError) as caught:
        code(mode, text)
    assert str(caught.value).startswith("f.s:2: ")
    assert any(part in str(caught.value) for part in message.split("|"))


def test_one_wrong_line_does_not_drop_the_others_in_silence():
    with pytest.raises(AssemblyError, match=r"^f\.s:3: "):
        code(32, "nop\nmov eax, dword [ebx]\nnop")
