"""Single instructions against GNU as, byte for byte; what differs stands in a literal table and means the same."""

import shutil
import subprocess

import pytest
from pvhboot.shim import encode, proof
from pvhboot.shim.assembler import assemble
from pvhboot.shim.errors import AssemblyError
from pvhboot.shim.instruction import Instruction
from pvhboot.shim.operands import Immediate, Register
from pvhboot.shim.source import Unit

ORIGIN = 0x1000


def _instructions(text: str) -> list[str]:
    return [part.strip() for part in text.replace("\n", "|").split("|") if part.strip()]


# `t` is a label behind the instruction.
COMMON = _instructions("""
mov al, 10 | mov ax, 10 | mov eax, 0xffffffff | mov eax, -1 | mov bl, 0xff | mov eax, ebx | mov al, ah | mov ECX, EAX
mov dword ptr [ebx], 0xffffffff | mov byte ptr [ebx + 4], 200 | mov WORD PTR [EBX+4], 0x1234 | mov  dword  ptr [ebx],1
mov eax, [ebx] | mov [ebx], eax | mov eax, dword ptr [0x1234] | mov al, byte ptr [0x1234]
mov dword ptr [0x1234], eax | mov byte ptr [0x80], 1 | mov eax, dword ptr [esp] | mov eax, dword ptr [esp + 4]
mov eax, dword ptr [esp + ebx] | mov eax, dword ptr [ebx + esp] | mov eax, dword ptr [ebp]
mov eax, dword ptr [ebp - 4] | mov eax, dword ptr [ebp - 128] | mov eax, dword ptr [ebp - 129]
mov eax, dword ptr [ebp + 127] | mov eax, dword ptr [ebp + 128] | mov eax, dword ptr [ebx + ecx*4]
mov eax, dword ptr [ebx + 4*ecx] | mov eax, dword ptr [ebx + ecx*4 - 8] | mov eax, dword ptr [4 + ecx*8 + ebx]
mov eax, dword ptr [eax + eax] | mov eax, dword ptr [ebp + ebp*2] | mov eax, dword ptr [ebx + ebp]
mov eax, dword ptr [ebp + ebx] | mov eax, dword ptr [ebx + 0xffffffff] | mov eax, dword ptr [ebx - 0x80000000]
mov eax, dword ptr es:[edi] | mov eax, dword ptr fs:[0x10] | mov eax, es:[0x10] | mov eax, dword ptr cs:[ebx + 2]
mov eax, dword ptr gs:[ebx] | mov eax, dword ptr ss:[ebx] | mov eax, dword ptr ds:[ebx] | mov eax, dword ptr ds:[ebp]
mov eax, dword ptr ss:[ebp] | mov eax, dword ptr ds:[esp] | mov eax, dword ptr ss:[esp + 4]
mov eax, dword ptr ds:[ebp + ebx] | mov eax, dword ptr ds:[ebx + ebp] | mov al, byte ptr ds:[0x1234]
mov eax, offset t | mov dword ptr [ebx], offset t | mov eax, dword ptr [t] | mov eax, offset t + 4
mov ss, word ptr [ebx] | mov ax, ds | mov eax, cr0 | mov cr0, eax | mov cr3, ecx | mov eax, cr2 | mov cr4, eax
mov dr7, eax | add eax, 1 | add eax, 0x80 | add eax, 0xffffffff | add ax, 0xffff | add ecx, 0x12345678
add dword ptr [ebx], 1 | add ecx, dword ptr [ebx] | adc eax, ebx | sbb eax, 0 | sub esp, 16 | sub al, -1
cmp eax, 0x7f | cmp eax, 0x80 | cmp al, 'A' | cmp bx, 0xff80 | cmp byte ptr [ebx], 'A' | cmp dword ptr [ebx], -1
cmp eax, offset t | and eax, 0xfffffff0 | and al, 0xf0 | or al, 0x80 | or ecx, 0xffff0000 | xor eax, eax
xor dword ptr [ebx], 0xff | test eax, eax | test eax, -1 | test al, 0x80 | test byte ptr [ebx], 1
test eax, dword ptr [ebx] | lea eax, [ebx + 4] | lea eax, [ebx + ecx*4 + 0x100] | lea ax, [ebx + 1] | shl eax, 1
shl eax, 4 | shl eax, cl | sal eax, 4 | shr eax, 31 | sar eax, 1 | rol dword ptr [ebx], 8 | ror ax, 8 | rcl eax, 1
rcr al, 1 | shld eax, ebx, 4 | shrd eax, ebx, cl | imul ecx | imul eax, ecx | imul ecx, 10 | imul ecx, 0xffffffff
imul eax, ecx, 10 | imul eax, ecx, 1000 | imul eax, dword ptr [ebx], 20 | imul ax, cx, 0xffff | mul ecx
mul byte ptr [ebx] | div ecx | idiv dword ptr [ebx] | neg eax | not dword ptr [ebx] | inc eax | inc al
dec dword ptr [ebx] | push eax | push ax | push ds | push es | push cs | push ss | push fs | push gs
push dword ptr [ebx] | push word ptr [ebx] | push 1 | push -128 | push 0x80 | push 0x1234 | push offset t | pop eax
pop bx | pop ds | pop es | pop ss | pop fs | pop gs | pop dword ptr [ebx] | pushf | popf | pushfd | popfd | pusha
popa | pushad | popad | in al, 0x60 | in eax, 0xff | in al, dx | in ax, dx | in eax, dx | out 0x80, al | out 0x80, ax
out 0xff, eax | out dx, al | out dx, ax | out dx, eax | movsb | movsw | movsd | stosb | stosd | lodsb | lodsd | scasb
scasw | cmpsb | cmpsd | insb | insw | outsb | outsd | rep movsb | rep movsw | rep movsd | rep stosb | rep stosd
rep insd | rep outsb | repe cmpsb | repz cmpsd | repne scasb | repnz scasd | cpuid | rdmsr | wrmsr | rdtsc
lgdtd [ebx] | lgdtd [0x1000] | lidtd cs:[ebx + ecx*4 + 0x100] | sgdt [ebx] | sidt [0x1000] | str ax
str word ptr [ebx] | ltr ax | lldt ax | sldt ax | smsw ax | smsw eax | lmsw ax | clts | invlpg [ebx] | xchg eax, ebx
xchg ecx, edx | xchg al, ah | xchg dword ptr [ebx], eax | xchg eax, dword ptr [ebx] | lock add dword ptr [ebx], 1
lock xchg dword ptr fs:[ebx], eax | lock cmpxchg dword ptr [ebx], ecx | lock bts dword ptr [ebx], 0
lock inc word ptr [ebx] | xadd dword ptr [ebx], eax | bt eax, 5 | bts eax, ecx | btr dword ptr [ebx], 31
bsf eax, ebx | bsr eax, ebx | bswap eax | movzx eax, al | movzx ax, al | movzx eax, byte ptr [ebx]
movzx eax, word ptr [ebx + 2] | movsx eax, cx | movsx ecx, byte ptr [ebx] | setz al | setnc cl | sete byte ptr [ebx]
cmovz eax, ebx | cmovne eax, dword ptr [ebx] | cmovc eax, ebx | cbw | cwde | cwd | cdq | cli | sti | cld | std | clc
stc | hlt | nop | pause | wbinvd | invd | iret | iretd | sahf | lahf | leave | enter 16, 0 | int 0x10 | int3 | ud2
les eax, [ebx] | lss esp, [ebx] | jmp eax | jmp ax | jmp [ebx] | call eax | call [ebx] | ljmp 0x08, 0x1234
lcall 0x08, 0x1234 | ret | ret 4 | retf | retf 4 | jmp t | call t | loop t | loope t | loopnz t | jecxz t | jcxz t
verr ax | lar eax, ecx
""")
COMMON += [
    f"{name} t" for name in ("jo", "jno", "jb", "jc", "jnae", "jae", "jnb", "jnc", "je", "jz", "jne", "jnz", "jbe", "jna")
]
COMMON += [
    f"{name} t" for name in ("ja", "jnbe", "js", "jns", "jp", "jpe", "jnp", "jpo", "jl", "jnge", "jge", "jnl", "jle", "jng")
]
COMMON += ["jg t", "jnle t"]

ONLY_16 = _instructions("""
mov ax, [bx] | mov ax, word ptr [bx + si] | mov ax, word ptr [si + bx] | mov ax, word ptr [bp + di + 4]
mov ax, word ptr [bp] | mov ax, word ptr ds:[bp] | mov ax, word ptr ss:[bp + si] | mov ax, word ptr [si - 1]
mov ax, word ptr [bx - 0x100] | mov ax, word ptr [0xffff] | mov al, es:[di] | mov ax, word ptr cs:[0x10]
mov dword ptr [bx], 1 | mov eax, dword ptr [bx + 0x100] | mov sp, 0x7c00 | lea si, [0x1234] | lgdtd cs:[0x1234]
lgdtd [bx + 4] | lidtd [bx] | sgdt [bx] | jmp word ptr [bx] | call word ptr [0x1234] | push dword ptr [bx]
push 0xffff | data32 ljmp 0x08, 0x12345678 | data32 lcall 0x08, 0x12345678 | mov es, ax
""")

ONLY_32 = _instructions("""
mov ecx, dword ptr [0x12345678] | mov eax, dword ptr [ecx*8 + 0x1000] | mov eax, dword ptr [ecx*2] | mov ds, eax
jmp dword ptr [ebx] | jmp dword ptr [ebx + ecx*4] | call dword ptr [0x1234] | lgdt [ebx] | lidt [0x1000]
push 0xffffffff | ljmp 0x08, 0x12345678 | lcall 0x08, 0x12345678
""")

# (mode, text): (ours, theirs). Another encoding of the same instruction, as Capstone reads both.
EXCEPTIONS = {
    (32, "mov ds, ax"): ("66 8e d8", "8e d8"),
    (32, "mov word ptr [ebx], es"): ("66 8c 03", "8c 03"),
    (16, "mov es, eax"): ("66 8e c0", "8e c0"),
    (16, "mov ax, word ptr [bx + 0xfff0]"): ("8b 87 f0 ff", "8b 47 f0"),
    (16, "mov ax, word ptr ss:[bp + si]"): ("8b 42 00", "8b 02"),
}
# What Capstone prints of the two where even that differs: a segment register is 16 bits wide whatever the source is.
EXCEPTION_TEXTS = {
    (32, "mov ds, ax"): ("mov ds, ax", "mov ds, eax"),
    (16, "mov es, eax"): ("mov es, eax", "mov es, ax"),
    (16, "mov ax, word ptr [bx + 0xfff0]"): ("mov ax, word ptr [bx - 0x10]", "mov ax, word ptr [bx - 0x10]"),
}

# What is refused, and why: never a wrong encoding.
REFUSED = [
    (16, "jmp dword ptr [bx]", "far one"),
    (16, "call dword ptr [0x1234]", "far one"),
    (16, "lgdt [bx]", "write lgdtd"),
    (16, "lidt [bx]", "write lidtd"),
    (16, "mov eax, dword ptr [ecx*8 + 0x1000]", "another address"),
    (16, "push 0x12345678", "does not fit into 2 bytes"),
    (16, "ljmp 8, 0x12345678", "does not fit into 2 bytes"),
    (16, "lcall 8, 0x12345678", "does not fit into 2 bytes"),
    (16, "jmp 0x12345678", "does not reach 0x12345678 from 0x1000"),
    (16, "call 0x12345678", "does not reach"),
    (16, "je 0x12345678", "does not reach"),
    (32, "jmp short t", "without short"),
    (32, "jmp near ptr t", "without near"),
    (32, "nop eax", "no operand"),
    (32, "shl eax", "another number of operands"),
    (32, "mov [ebx], 5", "cannot be assembled"),
    (32, "inc [ebx]", "cannot be assembled"),
    (32, "mov eax, [ebx*3]", "times 1, 2, 4 or 8"),
    (32, "mov eax, [eax + ebx + ecx]", "too many registers"),
    (32, "mov eax, [ebx - ecx]", "cannot be subtracted"),
    (32, "mov eax, [esp*2]", "mov eax, "),
    (32, "mov eax, [ebx + bx]", "mov eax, "),
    (32, "mov eax, bl", "cannot be assembled"),
    (32, "mov eax, rax", "cannot be assembled"),
    (32, "mov 5, eax", "cannot be assembled"),
    (32, "mov eax", "cannot be assembled"),
    (32, "bogus eax", "cannot be assembled"),
    (32, "jmp", "takes one operand"),
    (32, "je t, t", "takes one operand"),
    (32, "rep nop", "string instructions"),
    (32, "rep ret", "string instructions"),
    (32, "rep jmp t", "does not go with jmp"),
    (32, "lock movsd", "lock does not go"),
    (32, "lock mov dword ptr [ebx], eax", "lock does not go"),
    (32, "lock add eax, ebx", "lock does not go"),
    (32, "data32 movsd", "data32 goes with ljmp"),
    (32, "data32 lgdt [ebx]", "data32 goes with ljmp"),
    (32, "lgdt eax", "takes a memory operand"),
    (32, "ljmp eax", "takes a selector and an offset"),
    (32, "rep", "needs an instruction behind it"),
    (32, "mov eax, dword [ebx]", "cannot read the memory operand"),
    (32, "mov eax, [ebx", "cannot read the memory operand"),
    (32, "mov eax, []", "a term is missing"),
    (32, "mov eax, [ebx +]", "a term is missing"),
    (32, "mov eax, 4[ebx]", "cannot read the memory operand"),
    (32, "mov eax, [ebx][ecx]", "cannot read"),
    (32, "%define X", "cannot read the instruction"),
    (32, "/* mov eax, 1", "cannot read the instruction"),
]


def ours(mode: int, text: str) -> bytes:
    pieces = assemble([Unit("x.s", f".code{mode}\n{text}\nt:\n", ORIGIN)], {}).pieces
    return b"".join(data for _, data in pieces)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """What GNU as makes of each instruction: one run, a section for each."""
    if shutil.which("as") is None or shutil.which("ld") is None:
        pytest.skip("no GNU as and ld")
    folder = tmp_path_factory.mktemp("gas")
    cases = [(mode, text) for mode, texts in ((32, COMMON + ONLY_32), (16, COMMON + ONLY_16)) for text in texts]
    cases += [case for case in EXCEPTIONS if case not in cases]
    source, script = [".intel_syntax noprefix"], []
    for index, (mode, text) in enumerate(cases):
        spelled = text if mode == 16 else text.replace("lgdtd", "lgdt").replace("lidtd", "lidt")
        words = spelled.split()
        spelled = " ".join(f"t{index}" if word == "t" else word.replace("[t]", f"[t{index}]") for word in words)
        source += [f'.section .s{index}, "ax"', f".code{mode}", spelled, f"t{index}:", f".size_{index}:"]
        source += [".balign 16, 0xcc", ".fill 32, 1, 0xcc"]
        script.append(f".s{index} {ORIGIN:#x} : {{ *(.s{index}) }}")
    (folder / "a.s").write_text("\n".join(source) + "\n")
    (folder / "a.ld").write_text("SECTIONS {" + " ".join(script) + "}")
    run = {"cwd": folder, "check": True, "capture_output": True}
    subprocess.run(["as", "--32", "-o", "a.o", "a.s"], **run)
    subprocess.run(["ld", "-m", "elf_i386", "--no-check-sections", "-T", "a.ld", "-o", "a.elf", "a.o"], **run)
    elffile = pytest.importorskip("elftools.elf.elffile")
    with open(folder / "a.elf", "rb") as file:
        elf = elffile.ELFFile(file)
        ends = {symbol.name: symbol["st_value"] for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
        return {
            case: elf.get_section_by_name(f".s{index}").data()[: ends[f"t{index}"] - ORIGIN] for index, case in enumerate(cases)
        }


@pytest.mark.parametrize("text", COMMON + ONLY_32)
def test_32_bit_as_gnu_as_has_it(text, theirs):
    if (32, text) not in EXCEPTIONS:
        assert ours(32, text).hex(" ") == theirs[32, text].hex(" ")


@pytest.mark.parametrize("text", COMMON + ONLY_16)
def test_16_bit_as_gnu_as_has_it(text, theirs):
    if (16, text) not in EXCEPTIONS:
        assert ours(16, text).hex(" ") == theirs[16, text].hex(" ")


def _disassembly(mode: int, code: bytes) -> str:
    (found,) = proof._capstone(mode).disasm(code, ORIGIN)
    return f"{found.mnemonic} {found.op_str}"


@pytest.mark.parametrize(("mode", "text"), EXCEPTIONS)
def test_exceptions_mean_the_same(mode, text, theirs):
    expected_ours, expected_theirs = EXCEPTIONS[mode, text]
    assert ours(mode, text).hex(" ") == expected_ours
    assert theirs[mode, text].hex(" ") == expected_theirs
    texts = tuple(_disassembly(mode, bytes.fromhex(code)) for code in EXCEPTIONS[mode, text])
    if (mode, text) in EXCEPTION_TEXTS:
        assert texts == EXCEPTION_TEXTS[mode, text]
    else:
        assert texts[0] == texts[1]


@pytest.mark.parametrize(("mode", "text", "message"), REFUSED, ids=[f"{mode}: {text}" for mode, text, _ in REFUSED])
def test_refused(mode, text, message):
    with pytest.raises(AssemblyError, match=r"^x\.s:2: ") as caught:
        ours(mode, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_16_bit_code_takes_a_32_bit_address_where_gnu_as_cuts_it():
    assert ours(16, "mov ecx, dword ptr [0x12345678]").hex(" ") == "67 66 8b 0d 78 56 34 12"


# 64-bit code, as the conformance guest needs it.
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("ret", "c3"),
        ("retf", "cb"),
        ("pushf", "9c"),
        ("popf", "9d"),
        ("iretq", "48 cf"),
        ("push fs", "0f a0"),
        ("pop gs", "0f a9"),
        ("push -1", "6a ff"),
        ("mov rax, cr0", "0f 20 c0"),
        ("lgdt [rax]", "0f 01 10"),
        ("mov eax, dword ptr fs:[rbx]", "64 8b 03"),
        ("rep movsd", "f3 a5"),
        ("jmp t", "eb 00"),
        ("call t", "e8 00 00 00 00"),
    ],
)
def test_64_bit(text, code):
    assert ours(64, text).hex(" ") == code


@pytest.mark.parametrize("text", ["push es", "pushad", "ljmp 8, 0", "push cs"])
def test_64_bit_refuses_what_is_gone(text):
    with pytest.raises(AssemblyError, match=r"^x\.s:2: "):
        ours(64, text)


# Wrong bytes, as an assembler might return them, for `mov eax, 5` and others: the proof must see each.
@pytest.mark.parametrize(
    ("instruction", "code"),
    [
        (Instruction(32, "", "mov", (Register("eax"), Immediate(5))), "b8 06 00 00 00"),
        (Instruction(32, "", "mov", (Register("eax"), Immediate(5))), "bb 05 00 00 00"),
        (Instruction(32, "", "mov", (Register("eax"), Immediate(5))), "05 05 00 00 00"),
        (Instruction(32, "", "mov", (Register("eax"), Immediate(5))), "b8 05 00 00"),
        (Instruction(32, "", "mov", (Register("eax"), Immediate(5))), "b8 05 00 00 00 90"),
        (Instruction(32, "", "mov", (Register("eax"), Immediate(5))), "66 b8 05 00"),
        (Instruction(32, "", "mov", (Register("eax"), Immediate(5))), "8b 05 05 00 00 00"),
        (Instruction(32, "", "mov", (Register("al"), Immediate(0x105))), "b0 05"),
        (Instruction(32, "rep", "stosd", ()), "ab"),
        (Instruction(32, "", "stosd", ()), "f3 ab"),
        (Instruction(32, "", "ret", ()), "c2 04 00 90"),
    ],
)
def test_the_proof_refuses_wrong_bytes(instruction, code):
    with pytest.raises(ValueError, match=r"reads back as|does not fit"):
        proof.prove(instruction, bytes.fromhex(code), 0)


def test_a_branch_says_that_only_its_near_form_reaches():
    jump = Instruction(32, "", "jmp", (Immediate(0x2000),))
    assert encode.is_relative(jump)
    with pytest.raises(encode.Unreachable):
        encode.encode(jump, ORIGIN)
    assert encode.encode(jump, ORIGIN, near=True).hex(" ") == "e9 fb 0f 00 00"
