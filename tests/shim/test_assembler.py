"""The passes: labels, branches, constants, placement, and errors by file and line."""

import random
import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvhboot.shim.assembler import assemble
from pvhboot.shim.errors import BootError
from pvhboot.shim.listing import ListingLine
from pvhboot.shim.source import Unit

ORIGIN = 0x1000


def build(text, origin=ORIGIN, **symbols):
    return assemble([Unit("f.s", f".code32\n{text}", origin)], symbols)


def code(text, origin=ORIGIN, **symbols):
    return b"".join(data for _, data in build(text, origin, **symbols).pieces)


def refused(text, **symbols):
    with pytest.raises(BootError) as caught:
        build(text, **symbols)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Labels and constants.


def test_labels_constants_and_listing():
    assembly = build("start: nop\n.equ FIVE, 5\nmiddle:\n  mov al, FIVE + OUTSIDE  # the sum\nend:", OUTSIDE=1)
    assert assembly.labels == {"start": 0x1000, "middle": 0x1001, "end": 0x1003}
    assert assembly.constants == {"FIVE": 5}
    assert assembly.pieces == ((0x1000, b"\x90"), (0x1001, b"\xb0\x06"))
    assert assembly.listing == (
        ListingLine(0x1000, b"\x90", "f.s", 2, "nop"),
        ListingLine(0x1001, b"\xb0\x06", "f.s", 5, "mov al, FIVE + OUTSIDE"),
    )


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("jmp a\na:", "eb 00"),
        ("a: jmp a", "eb fe"),
        ("jmp a + 1\na: nop\nnop", "eb 01 90 90"),
        ("jmp .", "eb fe"),
        ("nop\njmp . - 1", "90 eb fd"),
        ("call a\na:", "e8 00 00 00 00"),
        (".long a, b - a\na: nop\nb:", "08 10 00 00 01 00 00 00 90"),
        (".long .", "00 10 00 00"),
        (".equ X, b - a\na: nop\nnop\nb: mov al, X", "90 90 b0 02"),
        ("a: nop\nb: mov eax, b - a", "90 b8 01 00 00 00"),
        ("a: nop\nmov eax, . - a", "90 b8 01 00 00 00"),
        ("mov eax, dword ptr [a]\na:", "a1 05 10 00 00"),
        ("mov eax, offset a - 5\na:", "b8 00 10 00 00"),
        (".equ X, a\nmov eax, offset X\na:", "b8 05 10 00 00"),
        (".equ X, a\nmov eax, [X]\na:", "a1 05 10 00 00"),
        (".skip b - a\na: nop\nb:", "00 90"),
        (".skip b - a - 4\na: nop\nnop\nnop\nnop\nnop\nb:", "00 90 90 90 90 90"),
    ],
)
def test_addresses(text, data):
    assert code(text).hex(" ") == data


def test_numeric_labels():
    text = "1: nop\njmp 1b\njmp 1f\n1: nop\njmp 1b\njmp 2f\n2:\n1: jmp 1b\n0: jmp 0b"
    assert code(text).hex(" ") == "90 eb fd eb 00 90 eb fd eb 00 eb fe eb fe"


def test_a_label_of_another_file():
    units = [Unit("a.s", ".code32\njmp there", 0x1000), Unit("b.s", "nop\nthere: nop")]
    assert assemble(units, {}).pieces[0] == (0x1000, b"\xeb\x01")


def test_origins():
    assembly = assemble([Unit("a.s", ".code32\nnop\ncall b", 0x1000), Unit("b.s", "b: nop", 0x2000)], {})
    assert assembly.labels == {"b": 0x2000}
    assert assembly.pieces == ((0x1000, b"\x90"), (0x1001, b"\xe8\xfa\x0f\x00\x00"), (0x2000, b"\x90"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\na:", "f.s:3: a is defined twice"),
        (".equ a, 1\n.equ a, 1", "f.s:3: a is defined twice"),
        (".equ a, 1\na:", "f.s:3: a is defined twice"),
        ("a:\n.equ a, 1", "f.s:3: a is defined twice"),
        ("nop\nGIVEN:", "f.s:3: GIVEN is defined twice"),
        (".equ GIVEN, 1", "f.s:2: GIVEN is defined twice"),
        ("nop\njmp nowhere", "f.s:3: nowhere is not defined"),
        ("mov eax, NOWHERE", "f.s:2: NOWHERE is not defined"),
        ("mov eax, [ebx + NOWHERE]", "f.s:2: NOWHERE is not defined"),
        (".long NOWHERE", "f.s:2: NOWHERE is not defined"),
        (".byte nowhere\na: nop", "f.s:2: nowhere is not defined"),
        (".equ X, NOWHERE", "f.s:2: NOWHERE is not defined"),
        ("mov al, X\n.equ X, 5", "f.s:2: X is not defined"),
        ("jmp 1f", "f.s:2: 1f is not defined"),
        ("1: jmp 2b", "f.s:2: 2b is not defined"),
        ("jmp 1b\n1:", "f.s:2: 1b is not defined"),
        ("movd xmm0, eax", "f.s:2: xmm0 is not defined"),
        ("mov al, 0x1ff\nmov bl, 0x1ff\nx:", "f.s:2: 0x1ff does not fit into 1 byte"),
        (".byte 256", "f.s:2: 0x100 does not fit into 1 byte"),
        (".byte -129", "f.s:2: -0x81 does not fit into 1 byte"),
        (".word 0x12345", "f.s:2: 0x12345 does not fit into 2 bytes"),
        (".long 1 << 32", "f.s:2: 0x100000000 does not fit into 4 bytes"),
        (".byte b - a\na: .skip 200\n.skip 200\nb:", "f.s:2: 0x190 does not fit into 1 byte"),
        (".skip 0x7fffffff", "f.s:2: 2147483647 bytes of fill: there is room for 1048576"),
        (".skip 0x100000\n.skip 1", "f.s:3: 1 bytes of fill: there is room for 0"),
        (".skip -1", "f.s:2: -1 bytes of fill: there is room for 1048576"),
        (".skip 1, 256", "f.s:2: the fill 0x100 is no byte"),
        (".balign 3", "f.s:2: the alignment 3 is no power of two"),
        (".balign 0", "f.s:2: the alignment 0 is no power of two"),
        ("nop\n.balign 1 << 40", "bytes of fill: there is room for"),
        ("a: .skip 1 - (b - a)\nb:", "f.s: the labels still move after 512 passes: a size depends on itself"),
    ],
)
def test_refused(text, message):
    assert message in refused(text, GIVEN=1)


@pytest.mark.parametrize(
    ("operand", "hint"),
    [
        ("a", "write `offset a` for this address, `[a]` for what lies there"),
        ("a - 4", "`offset a - 4`"),
        ("4 + a", "`offset 4 + a`"),
        ("(a)", "`offset (a)`"),
        ("1b", "`offset 1b`"),
        ("1f", "`offset 1f`"),
        (".", "`offset .`"),
        ("X", "`offset X`"),
        ("a + b - a", "`offset a + b - a`"),
    ],
)
@pytest.mark.parametrize("instruction", ["mov eax, {}", "push {}", "cmp dword ptr [ebx], {}"])
def test_a_bare_address_as_a_number_is_ambiguous(instruction, operand, hint):
    message = refused(f"1: b: nop\n.equ X, a\n{instruction.format(operand)}\n1: a:")
    assert message.startswith("f.s:4: ")
    assert hint in message


# Placement.


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("nop\n.balign 4", "90 00 00 00"),
        ("nop\n.balign 4, 0x90", "90 90 90 90"),
        (".balign 16", ""),
        ("nop\n.balign 1\nnop", "90 90"),
        ("nop\n.balign 2\na: jmp a", "90 00 eb fe"),
    ],
)
def test_alignment(text, data):
    assert code(text).hex(" ") == data


def test_alignment_is_of_the_address():
    assert code("nop\n.balign 8, 0xcc", origin=0x1003) == b"\x90" + b"\xcc" * 4


# Branches: short where they reach, near where not, at the last byte of either direction.


@pytest.mark.parametrize(("fill", "size"), [(126, 2), (127, 2), (128, 5), (129, 5)])
def test_jmp_ahead(fill, size):
    data = code(f"jmp a\n.skip {fill}\na:")
    assert len(data) == fill + size
    assert data[:2] == bytes([0xEB, fill]) if size == 2 else data[:5] == b"\xe9" + fill.to_bytes(4, "little")


@pytest.mark.parametrize(("fill", "size"), [(125, 2), (126, 2), (127, 5), (128, 5)])
def test_jmp_back(fill, size):
    data = code(f"a:\n.skip {fill}\njmp a")[fill:]
    assert len(data) == size
    distance = (-fill - size) & 0xFFFFFFFF
    assert data == (bytes([0xEB, distance & 0xFF]) if size == 2 else b"\xe9" + distance.to_bytes(4, "little"))


@pytest.mark.parametrize(("mode", "near"), [(16, "0f 84 80 00"), (32, "0f 84 80 00 00 00"), (64, "0f 84 80 00 00 00")])
def test_jcc_ahead(mode, near):
    short = assemble([Unit("f.s", f".code{mode}\nje a\n.skip 127\na:", 0x1000)], {}).pieces[0][1]
    long = assemble([Unit("f.s", f".code{mode}\nje a\n.skip 128\na:", 0x1000)], {}).pieces[0][1]
    assert (short.hex(" "), long.hex(" ")) == ("74 7f", near)


def test_a_chain_in_which_each_branch_pushes_the_one_before_it_over_the_edge():
    """Each reaches just over the next, and the last one to the end: when that does not, all have to grow."""
    count = 200
    lines = ["jmp l0\n.skip 125", *(f"jmp l{n}\nl{n - 1}:\n.skip 125" for n in range(1, count))]
    short = code("\n".join([*lines, ".skip 2", f"l{count - 1}:"]))
    assert len(short) == count * 127 + 2
    long = code("\n".join([*lines, ".skip 3", f"l{count - 1}:"]))
    assert len(long) == count * 130 + 3


def test_what_lies_behind_many_that_grow_stays_short():
    """A branch is judged by where things will be, not by the addresses of the pass before."""
    many = "".join("je far\n" for _ in range(100))
    data = code(f"{many}loop near\njmp near\nnop\nnear: nop\n.skip 200\nfar:")
    assert data[600:606].hex(" ") == "e2 03 eb 01 90 90"


def test_loop_at_its_edges():
    assert code("a:\n.skip 126\nloop a")[126:].hex(" ") == "e2 80"
    assert code("loop a\n.skip 127\na:")[:2].hex(" ") == "e2 7f"
    assert refused("loop a\n.skip 128\na:") == "f.s:2: loop reaches 128 bytes back and 127 ahead, not 128"
    assert refused("a:\n.skip 127\nloop a") == "f.s:4: loop reaches 128 bytes back and 127 ahead, not -129"
    assert refused("jecxz a\n.skip 128\na:") == "f.s:2: jecxz reaches 128 bytes back and 127 ahead, not 128"


def test_branches_wrap_at_4_gib():
    assert code("jmp 0x10", origin=0xFFFFFFF0).hex(" ") == "eb 1e"
    assert code("jmp 0xfffffff0", origin=0x10).hex(" ") == "eb de"
    assert code("call 0", origin=0x80000000).hex(" ") == "e8 fb ff ff 7f"


def test_the_jump_of_a_reset_vector():
    pieces = assemble([Unit("f.s", ".code16\njmp 0xffff8000", 0xFFFFFFF0)], {}).pieces
    assert pieces == ((0xFFFFFFF0, b"\xe9\x0d\x80"),)


@pytest.mark.parametrize("target", [0x12345678, 0x21003, 0xFFFFFFF0])
def test_16_bit_branch_out_of_its_segment(target):
    with pytest.raises(BootError, match=rf"^f\.s:2: jmp in 16-bit code does not reach {target:#x} from 0x11000"):
        assemble([Unit("f.s", f".code16\njmp {target:#x}", 0x11000)], {})


def test_same_source_same_result():
    text = 'a: jmp b\n.skip 130\nb: je a\nloop b\n.balign 16, 0x90\n.ascii "x"'
    assert build(text) == build(text)


def random_branches(seed):
    """A program of branches and gaps around what a short branch reaches; its labels are l0 to l19."""
    rng = random.Random(seed)
    lines = []
    for label in range(20):
        lines.append(f"l{label}:")
        lines += [f"{rng.choice(('jmp', 'je', 'jae', 'call'))} l{rng.randrange(20)}" for _ in range(rng.randrange(4))]
        lines.append(f".skip {rng.choice((0, 1, 3, 20, 60, 100, 120, 124, 127))}, 0x90")
    return lines


@pytest.mark.skipif(shutil.which("as") is None or shutil.which("ld") is None, reason="no GNU as and ld")
@pytest.mark.parametrize("mode", [16, 32])
def test_branches_relax_as_those_of_gnu_as(tmp_path, mode):
    programs = [random_branches(seed) for seed in range(60)]
    source = [".intel_syntax noprefix", f".code{mode}"]
    for number, program in enumerate(programs):
        source += [re.sub(r"\bl(\d+)", rf"p{number}_\1", line) for line in program]
    text = "\n".join(source) + "\n"
    (tmp_path / "a.s").write_text(text)
    run = {"cwd": tmp_path, "check": True, "capture_output": True}
    subprocess.run(["as", "--32", "-o", "a.o", "a.s"], **run)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0", "-e", "0", "--oformat", "binary", "-o", "a.bin", "a.o"], **run)
    ours = assemble([Unit("f.s", text.partition("\n")[2], 0)], {})
    assert b"".join(data for _, data in ours.pieces) == (tmp_path / "a.bin").read_bytes()


# Whatever it is given: bytes, or an error that names a file.

_FRAGMENTS = (
    """
nop|ret|mov eax, 5|mov al, 0x1ff|mov eax, [ebx + A - B*4]|push a|push offset a|jmp a|je 1f|loop 1b|call b|a:
b:|1:|.code16|.code32|.code64|.byte 1, 2, -3|.long a - b|.quad .|.word 99999|.ascii "x\\n"|.asciz "#;"
.skip 200|.skip b - a|.skip 0x7fffffff|.balign 16|.balign a|.equ A, 5|.equ B, a|.equ A, B + 1|.if A|.ifdef B
.ifndef a|.else|.endif|.macro M x|.macro N|.endm|M 1|M|N|\\x|.byte \\x|rep movsd|lock inc dword ptr [ebx]
data32 ljmp 8, 0x1000|lgdt [a]|lgdtd cs:[a]|ljmp 8, b|out 0x80, al|.include "x"|.bogus|;|"|'|[|]|(|)|,|#|//|:
\\|$|.|-|*|<<|0x|10|010|1b|eax|offset|dword ptr|short|é|\t|/*|%|.if 1 / 0|.byte 1 << 63 << 1|mov eax, ((((1
""".strip()
    .replace("\n", "|")
    .split("|")
)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(_FRAGMENTS),
            st.lists(st.sampled_from(_FRAGMENTS), min_size=2, max_size=4).map(" ".join),
            st.text(alphabet="ab01x[]()+-*,.:;#'\"\\ \t\u0663", max_size=12),
        ),
        max_size=14,
    ).map("\n".join)
)
def test_any_text_is_bytes_or_a_boot_error(text):
    error, pieces, listing = "f.s:", (), ()
    try:
        pieces, _, _, listing = assemble([Unit("f.s", ".code32\n" + text, 0x1000)], {})
    except BootError as caught:
        error = str(caught)
    assert error.startswith("f.s:")
    assert pieces == tuple((line.address, line.data) for line in listing)
