"""Makes guests that provoke exceptions: with IDT, TSS and page tables of their own, and handlers that write down what they
find.

A handler's record is RECORD_WORDS words (of 4 bytes, in long mode 8): the vector; the stack pointer, flags, CR2, CS and SS at
its first instruction; six words of the stack. At `done` the guest prints all records to COM1 and leaves.
"""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from pvhboot.shim.abi import interrupts, pvh
from pvhboot.shim.abi.elf import PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE
from pvhboot.shim.assembler import assemble
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf
from pvhboot.shim.source import Unit

CODE, GDT, IDT, TSS, LOG, VARS = 0x100000, 0x200000, 0x201000, 0x202000, 0x203000, 0x206000
STACK, INNER_STACK, IST_STACK, USER_STACK = 0x209000, 0x20B000, 0x20D000, 0x20F000
RESUME, PTE_AT, PTE_VALUE = VARS + 8, VARS + 16, VARS + 24
RECORD_WORDS = 12

CODE32, DATA32, USER_CODE32, USER_DATA32, CODE64, TASK, ABSENT_CODE, USER_CODE64 = 8, 0x10, 0x1B, 0x23, 0x28, 0x30, 0x40, 0x4B
CONFORMING, OFFSET_CODE = 0x53, 0x58  # the latter's base is CODE
DONE_VECTOR = 0x81

# What the test pages are: linear address -> (physical address, bits of the entry). P 1, W 2, U 4.
PAGES = {
    0x400000: (0x300000, 0),
    0x401000: (0x301000, 1),
    0x402000: (0x302000, 3),
    0x403000: (0x303000, 5),
    0x404000: (0x304000, 7),
    0x405000: (0x305000, 7),  # no execution, where there is such a bit
    0x406000: (0x306000, 0),
}
NO_EXECUTE_PAGE = 0x405000
_PD32, _PT32_0, _PT32_1, _PDPT, _PD, _PT_0, _PT_2, _PML4, _PDPT64 = (0x210000 + 0x1000 * n for n in range(9))


def pte_at(mode: str, page: int) -> int:
    """Where the entry of a test page lies."""
    index = page - min(PAGES) >> 12
    return _PT32_1 + 4 * index if mode == "paged" else _PT_2 + 8 * index


def descriptor(kind: int, bits: int, limit: int = 0xFFFFF, base: int = 0) -> bytes:
    """`kind`: type, S, DPL and P; `bits`: AVL, L, D, G."""
    return struct.pack("<HHBBBB", limit & 0xFFFF, base & 0xFFFF, base >> 16 & 0xFF, kind, limit >> 16 | bits << 4, base >> 24)


def _gdt() -> bytes:
    entries = [bytes(8), descriptor(0x9B, 0xC), descriptor(0x93, 0xC), descriptor(0xFB, 0xC), descriptor(0xF3, 0xC)]
    entries += [descriptor(0x9B, 0xA), descriptor(0x89, 0, 0x67, TSS), bytes(8), descriptor(0x1B, 0xC), descriptor(0xFB, 0xA)]
    return b"".join([*entries, descriptor(0x9F, 0xC), descriptor(0x9B, 0xC, base=CODE)])


class Gate(NamedTuple):
    """An IDT entry; `to`: an address or a label, by default that of the vector's handler."""

    kind: int = 0xE
    dpl: int = 0
    present: bool = True
    selector: int | None = None
    ist: int = 0
    to: str | int = ""

    def pack(self, offset: int, wide: bool) -> bytes:
        kind = self.kind | self.dpl << 5 | self.present << 7
        selector = (CODE64 if wide else CODE32) if self.selector is None else self.selector
        upper = 0 if self.kind in (interrupts.GATE_INTERRUPT16, interrupts.GATE_TRAP16) else offset >> 16 & 0xFFFF
        data = struct.pack("<HHBBH", offset & 0xFFFF, selector, self.ist, kind, upper)
        return data + struct.pack("<II", offset >> 32, 0) if wide else data


DEFAULT_GATES = {vector: Gate() for vector in (0, 1, 6, 8, 10, 11, 12, 13, 14)}
DEFAULT_GATES |= {3: Gate(dpl=3), 4: Gate(dpl=3), 0x80: Gate(kind=0xF, dpl=3), DONE_VECTOR: Gate(dpl=3, to="done")}


class Guest(NamedTuple):
    """A guest as an ELF file, and the addresses of its labels."""

    elf: bytes
    labels: Mapping[str, int]


def resume(mode: str, label: str) -> str:
    """Assembly: the next handler that is entered returns to a label."""
    return store(mode, RESUME, f"offset {label}")


def store(mode: str, at: int, value: str | int) -> str:
    """Assembly: a word of the variables becomes a number below 4 GiB."""
    if mode == "long":
        return f"    mov eax, {value}\n    mov qword ptr [r15 + {at - VARS}], rax\n"
    return f"    mov dword ptr [{at}], {value}\n"


def forge(
    mode: str, body: str, gates: Mapping[int, Gate] | None = None, *, idt_limit: int | None = None, tss: bytes | None = None
) -> Guest:
    """`mode`: flat, paged (32-bit), pae or long. `body` is assembly of that mode's bits; it falls into `done`."""
    wide = mode == "long"
    gates = {**DEFAULT_GATES, **(gates or {})}
    size = 16 if wide else 8
    limit = size * 256 - 1 if idt_limit is None else idt_limit
    source = _SETUP[mode] + body + (_DONE64 if wide else _DONE32) + _handlers(wide, gates)
    source += f".balign 8\ngdtr:\n    .word {len(_gdt()) - 1}\n    .long {GDT}\nidtr:\n    .word {limit}\n    .long {IDT}\n"
    program = assemble([Unit("guest.s", source, CODE)], {})
    idt = bytearray(size * 256)
    for vector, gate in gates.items():
        idt[size * vector : size * (vector + 1)] = gate.pack(
            gate.to if isinstance(gate.to, int) else program.labels[gate.to or f"handler_{vector}"], wide
        )
    code = b"".join(data for _, data in program.pieces)
    pieces = {CODE: code, GDT: _gdt(), IDT: bytes(idt), TSS: tss or _tss(wide), VARS: struct.pack("<Q", LOG), _PD32: _tables()}
    return Guest(elf_of(pieces), program.labels)


def elf_of(pieces: Mapping[int, bytes]) -> bytes:
    """A kernel with these bytes at these physical addresses, and its entry at CODE."""
    segments = [ElfSegment(PT_LOAD, at, data, len(data), PF_R | PF_W | PF_X, 16) for at, data in pieces.items()]
    entry = note(b"Xen\0", pvh.XEN_ELFNOTE_PHYS32_ENTRY, CODE.to_bytes(4, "little"))
    return write_elf(32, CODE, (*segments, ElfSegment(PT_NOTE, 0, entry, len(entry), PF_R, 4)), {})


def _tss(wide: bool) -> bytes:
    data = bytearray(0x68)
    if wide:
        struct.pack_into("<Q", data, 4, INNER_STACK)
        struct.pack_into("<Q", data, 0x24, IST_STACK)
    else:
        struct.pack_into("<II", data, 4, INNER_STACK, DATA32)
    return bytes(data)


def _tables() -> bytes:
    """All page tables: 0 to 4 MiB are as they are, for the user too; above are the test pages."""
    data = bytearray(0x9000)

    def put(code: str, table: int, entries: Mapping[int, int]) -> None:
        for index, value in entries.items():
            struct.pack_into(code, data, table - _PD32 + struct.calcsize(code) * index, value)

    put("<I", _PD32, {0: _PT32_0 | 7, 1: _PT32_1 | 7})
    put("<I", _PT32_0, {page: page << 12 | 7 for page in range(1024)})
    put("<I", _PT32_1, {page - min(PAGES) >> 12: frame | bits for page, (frame, bits) in PAGES.items()})
    put("<Q", _PDPT, {0: _PD | 1})
    put("<Q", _PD, {0: _PT_0 | 7, 1: 0x200000 | 0x87, 2: _PT_2 | 7})
    put("<Q", _PT_0, {page: page << 12 | 7 for page in range(512)})
    for page, (frame, bits) in PAGES.items():
        put("<Q", _PT_2, {page - min(PAGES) >> 12: frame | bits | (1 << 63 if page == NO_EXECUTE_PAGE else 0)})
    put("<Q", _PML4, {0: _PDPT64 | 7})
    put("<Q", _PDPT64, {0: _PD | 7})
    return bytes(data)


_FLAT = f"""
.code32
    mov esp, {STACK}
    lgdt [gdtr]
    lidt [idtr]
    ljmp {CODE32}, offset flat
flat:
    mov eax, {DATA32}
    mov ds, eax
    mov es, eax
    mov ss, eax
"""
_LOAD_TASK = f"    mov eax, {TASK}\n    ltr ax\n"


def _paging(table: int, cr4: int, efer: int) -> str:
    return f"""
    mov eax, {cr4}
    mov cr4, eax
    mov eax, {table}
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, {efer}
    wrmsr
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
"""


_LONG = f"""
    ljmp {CODE64}, offset long
.code64
long:
    mov r15d, {VARS}
    mov esp, {STACK}
"""
_SETUP = {
    "flat": _FLAT + _LOAD_TASK,
    "paged": _FLAT + _LOAD_TASK + _paging(_PD32, 0, 0),
    "pae": _FLAT + _LOAD_TASK + _paging(_PDPT, 0x20, 0x800),
    "long": _FLAT + _paging(_PML4, 0x20, 0x900) + _LONG + _LOAD_TASK,
}

_PRINT = """
1:
    cmp {si}, {di}
    jae 4f
    mov ebx, dword ptr [{si}]
    add {si}, 4
    mov ecx, 8
2:
    rol ebx, 4
    mov eax, ebx
    and eax, 15
    add eax, 0x30
    cmp eax, 0x39
    jbe 3f
    add eax, 39
3:
    mov edx, 0x3f8
    out dx, al
    dec ecx
    jnz 2b
    mov eax, 10
    out dx, al
    jmp 1b
4:
    mov edx, 0x501
    xor eax, eax
    out dx, al
5:
    hlt
    jmp 5b
"""
_DONE32 = f"done:\n    mov esi, {LOG}\n    mov edi, dword ptr [{VARS}]\n" + _PRINT.format(si="esi", di="edi")
_DONE64 = f"done:\n    mov esi, {LOG}\n    mov rdi, qword ptr [r15]\n" + _PRINT.format(si="rsi", di="rdi")


def _handlers(wide: bool, gates: Mapping[int, Gate]) -> str:
    a, word = ("r", 8) if wide else ("e", 4)
    text = ""
    for vector, gate in gates.items():
        if not gate.to:
            name = "coded" if vector in interrupts.HAS_ERROR_CODE else "plain"
            text += f"handler_{vector}:\n    push {a}ax\n    mov eax, {vector}\n    jmp {name}\n"
    var = (lambda at: f"[r15 + {at - VARS}]") if wide else (lambda at: f"[{at}]")
    kind = "qword" if wide else "dword"
    for name, extra in (("plain", 0), ("coded", word)):
        frame = 4 * word
        lines = [f"push {a}bx", f"push {a}cx", f"push {a}dx", f"mov {a}bx, {kind} ptr {var(VARS)}"]
        lines += [f"mov {kind} ptr [{a}bx], {a}ax", f"lea {a}cx, [{a}sp + {frame}]", f"mov {kind} ptr [{a}bx + {word}], {a}cx"]
        lines += ["pushfq" if wide else "pushfd", f"pop {a}cx", f"mov {kind} ptr [{a}bx + {2 * word}], {a}cx"]
        lines += [f"mov {a}cx, cr2", f"mov {kind} ptr [{a}bx + {3 * word}], {a}cx"]
        for at, segment in ((4, "cs"), (5, "ss")):
            lines += [f"xor ecx, ecx\n    mov cx, {segment}", f"mov {kind} ptr [{a}bx + {at * word}], {a}cx"]
        for at in range(6):
            lines += [f"mov {a}cx, {kind} ptr [{a}sp + {frame + at * word}]"]
            lines += [f"mov {kind} ptr [{a}bx + {(6 + at) * word}], {a}cx"]
        lines += [f"add {kind} ptr {var(VARS)}, {RECORD_WORDS * word}"]
        lines += [f"mov {a}cx, {kind} ptr {var(RESUME)}", f"test {a}cx, {a}cx", "jz 1f"]
        lines += [f"mov {kind} ptr [{a}sp + {frame + extra}], {a}cx", f"mov {kind} ptr {var(RESUME)}, 0", "1:"]
        lines += [f"mov {a}cx, {kind} ptr {var(PTE_AT)}", f"test {a}cx, {a}cx", "jz 2f"]
        lines += [f"mov edx, dword ptr {var(PTE_VALUE)}", f"mov dword ptr [{a}cx], edx", f"mov {a}cx, cr3", f"mov cr3, {a}cx"]
        lines += [f"mov {kind} ptr {var(PTE_AT)}, 0", "2:"]
        lines += [f"pop {a}dx", f"pop {a}cx", f"pop {a}bx", f"pop {a}ax"]
        lines += [f"add {a}sp, {extra}"] if extra else []
        lines += ["iretq" if wide else "iretd"]
        text += f"{name}:\n" + "".join(line + "\n" if line.endswith(":") else f"    {line}\n" for line in lines)
    return text


class Record(NamedTuple):
    """What a handler wrote down. `code` is None for a vector without error code; `frame_sp` and `frame_ss` mean something in
    long mode and after a change of privilege."""

    vector: int
    sp: int
    flags: int
    cr2: int
    cs: int
    ss: int
    code: int | None
    ip: int
    frame_cs: int
    frame_flags: int
    frame_sp: int
    frame_ss: int


def records(mode: str, console: bytes) -> list[Record]:
    """The records that a guest has printed."""
    data = b"".join(int(line, 16).to_bytes(4, "little") for line in console.split())
    size = 8 if mode == "long" else 4
    words = [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]
    found: list[Record] = []
    for at in range(0, len(words), RECORD_WORDS):
        head, stack = words[at : at + 6], words[at + 6 : at + RECORD_WORDS]
        coded = head[0] in interrupts.HAS_ERROR_CODE
        fields: list[Any] = [stack[0] if coded else None, *stack[coded : coded + 5]]
        fields += [0] * (6 - len(fields))
        found.append(Record(*head, *fields))
    return found
