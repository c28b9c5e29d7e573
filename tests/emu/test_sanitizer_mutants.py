"""Each mistake of a broken firmware is told by its kind, with the instruction and its source line."""

from typing import NamedTuple

import pytest
from pvhboot.emu.lab.mutant import Mutant
from pvhboot.emu.sanitizer import CLOBBER, EXECUTION, NOWHERE, STACK, STORE, TRANSFER, UNWRITTEN
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE, MICROVM, MICROVM_ACPI
from sanitizing import BEHIND, EBX, FREE, INITRD, INITRD_DATA, KERNEL, LOAD_INITRD, RESERVED, sanitize


class Found(NamedTuple):
    """What is to be told: the kind, whose memory it is, the instruction in its file, and words of the detail."""

    kind: str
    owner: str
    file: str
    text: str
    words: str


class Broken(NamedTuple):
    """A mutant, and all that is to be found in it; `caller` is the file in which the first one's routine was called."""

    mutant: Mutant
    found: tuple[Found, ...]
    caller: str = ""


def broken(name, file, old, new, *found, machine=BARE, dma=True, caller=""):
    return Broken(Mutant(name, file, old, new, machine=machine, dma=dma), tuple(Found(*told) for told in found), caller)


STACK_TOP = "    mov esp, STACK_TOP\n"
FLAGS = "    mov dword ptr [edi + HVM_START_INFO_FLAGS], eax\n"
INFO_DONE = "start_info_done:\n"
HIGH_HALF = "    mov dword ptr [FW_CFG_DMA_PADDR + FW_CFG_DMA_ADDRESS], 0 # all that is read lies below 4 GiB\n"
RESERVED_FIELD = "    mov dword ptr [edi + HVM_MODLIST_ENTRY_RESERVED + 4], eax\n"
LINE = "    mov edi, STRINGS_PADDR\n    call ebp\n"
START_INFO_END = BARE.low.start_info.end

BROKEN = (
    broken(
        "map-cleared-a-byte-too-far",
        "memmap.s",
        "    mov edi, MEMMAP_PADDR\n",
        f"    mov edi, MEMMAP_PADDR\n    mov ecx, {BARE.low.memmap.size + 1}\n    rep stosb\n    mov edi, MEMMAP_PADDR\n",
        (STORE, "free RAM", "memmap.s", "rep stosb", "1 byte at 0x7bd0 in free RAM (0x7bd0-0x7fff), directly behind memory"),
    ),
    broken(
        "map-cleared-a-dword-too-far",
        "memmap.s",
        "    mov edi, MEMMAP_PADDR\n",
        "    mov edi, MEMMAP_PADDR - 2\n    stosd\n    mov edi, MEMMAP_PADDR\n",
        (STORE, "free RAM", "memmap.s", "stosd", "2 of 4 bytes at 0x6ffe in free RAM"),
    ),
    broken(
        "kernel-overwritten",
        "handoff.s",
        EBX,
        "    mov word ptr [0x100002], 0x1234\n" + EBX,
        (CLOBBER, "kernel segment 0", "handoff.s", "mov word ptr [0x100002], 0x1234", "becomes 34 12, by 2 bytes at 0x100002"),
    ),
    broken(
        "bss-overwritten",
        "handoff.s",
        EBX,
        "    mov byte ptr [0x105fff], 1\n" + EBX,
        (CLOBBER, "kernel segment 0", "handoff.s", "mov byte ptr [0x105fff], 1", "00 at 0x105fff in kernel segment 0"),
    ),
    broken(
        "module-overwritten",
        "handoff.s",
        EBX,
        "    mov eax, dword ptr [MODLIST_PADDR]\n    mov byte ptr [eax + 1], 0\n" + EBX,
        (CLOBBER, "module", "handoff.s", "mov byte ptr [eax + 1], 0", "becomes 00, by 1 byte"),
    ),
    broken(
        "store-to-the-rom",
        "handoff.s",
        EBX,
        "    mov dword ptr [rom_gdt], 1\n" + EBX,
        (STORE, "the ROM", "handoff.s", "mov dword ptr [rom_gdt], 1", "4 bytes at 0xffff"),
    ),
    broken(
        "store-to-reserved-ram",
        "handoff.s",
        EBX,
        f"    mov dword ptr [{RESERVED.start:#x}], 1\n" + EBX,
        (STORE, "reserved RAM", "handoff.s", f"mov dword ptr [{RESERVED.start:#x}], 1", "4 bytes at 0x2000000 in reserved RAM"),
    ),
    broken(
        "store-to-where-nothing-is",
        "handoff.s",
        EBX,
        "    mov word ptr [0xd0000000], 1\n" + EBX,
        (NOWHERE, "", "handoff.s", "mov word ptr [0xd0000000], 1", "a write of 2 bytes at 0xd0000000, where nothing is"),
    ),
    broken(
        "load-from-where-nothing-is",
        "handoff.s",
        EBX,
        "    mov al, byte ptr [0xd0000001]\n" + EBX,
        (NOWHERE, "", "handoff.s", "mov al, byte ptr [0xd0000001]", "a read of 1 byte at 0xd0000001, where nothing is"),
    ),
    broken(
        "field-read-before-it-is-written",
        "start_info.s",
        FLAGS,
        FLAGS.replace("mov dword", "or dword"),
        (UNWRITTEN, "start_info", "start_info.s", "or dword ptr [edi + HVM_START_INFO_FLAGS], eax",
         "4 bytes that nobody has written, at 0x6008 in start_info (0x6000-0x6037)"),
    ),
    broken(
        "dword-read-where-a-word-was-written",
        "handoff.s",
        EBX,
        "    push ax\n    mov eax, dword ptr [esp - 2]\n    pop ax\n" + EBX,
        (UNWRITTEN, "firmware stack", "handoff.s", "mov eax, dword ptr [esp - 2]",
         "4 bytes, of which nobody has written 0-1, at 0x2ffc in firmware stack"),
    ),
    broken(
        "field-left-out",
        "start_info.s",
        "    mov dword ptr [edi + HVM_START_INFO_RESERVED], eax\n",
        "    mov word ptr [edi + HVM_START_INFO_RESERVED], ax\n",
        (UNWRITTEN, "start_info", "handoff.s", "jmp dword ptr [ENTRY_POINTER]",
         "the kernel is handed start_info, 56 bytes, of which nobody has written 54-55, at 0x6000"),
    ),
    broken(
        "jump-to-data",
        "handoff.s",
        EBX,
        "    jmp rom_gdt\n" + EBX,
        (EXECUTION, "the ROM", "handoff.s", "jmp rom_gdt", "which is data (tables.s:5: .quad 0)"),
    ),
    broken(
        "jump-into-an-instruction",
        "handoff.s",
        EBX,
        "    mov eax, offset handoff\n    inc eax\n    jmp eax\n" + EBX,
        (EXECUTION, "the ROM", "handoff.s", "jmp eax", "within the instruction (handoff.s:"),
    ),
    broken(
        "jump-to-nothing",
        "handoff.s",
        EBX,
        f"    mov eax, {BEHIND:#x}\n    jmp eax\n" + EBX,
        (EXECUTION, "free RAM", "handoff.s", "jmp eax", f"it goes on at {BEHIND:#x} in free RAM"),
    ),
    broken(
        "jump-beside-the-entry",
        "handoff.s",
        "    jmp dword ptr [ENTRY_POINTER]\n",
        "    mov eax, dword ptr [ENTRY_POINTER]\n    add eax, 0x10\n    jmp eax\n",
        (EXECUTION, "kernel segment 0", "handoff.s", "jmp eax", f"which is entered at {KERNEL:#x}"),
    ),
    broken(
        "stack-under-start-info",
        "flat32.s",
        STACK_TOP,
        "    mov esp, START_INFO_PADDR + SIZEOF_HVM_START_INFO\n",
        (STACK, "start_info", "e820.s", "call ebp", f"4 bytes pushed to {START_INFO_END - 4:#x} in start_info"),
        machine=MICROVM,
    ),
    broken(
        "initrd-over-the-kernel",
        "fw_cfg_kernel.s",
        LOAD_INITRD,
        "    mov edi, dword ptr [KERNEL_ADDR_PADDR]\n" + INITRD_DATA,
        (CLOBBER, "kernel segment 0", "fw_cfg_read.s", "out dx, eax", f"at {KERNEL:#x} in kernel segment 0"),
        machine=MICROVM,
        caller="fw_cfg_kernel.s",
    ),
    broken(
        "initrd-over-the-kernel-by-port",
        "fw_cfg_kernel.s",
        LOAD_INITRD,
        "    mov edi, dword ptr [KERNEL_ADDR_PADDR]\n" + INITRD_DATA,
        (CLOBBER, "kernel segment 0", "fw_cfg_read.s", "rep insb", f"at {KERNEL:#x} in kernel segment 0"),
        machine=MICROVM,
        dma=False,
        caller="fw_cfg_kernel.s",
    ),
    broken(
        "initrd-low",
        "fw_cfg_kernel.s",
        LOAD_INITRD,
        f"    mov edi, {FREE:#x}\n" + INITRD_DATA,
        (TRANSFER, "free RAM", "fw_cfg_read.s", "out dx, eax", f"{INITRD.stat().st_size} bytes at {FREE:#x} in free RAM"),
        machine=MICROVM,
        caller="fw_cfg_kernel.s",
    ),
    broken(
        "initrd-low-by-port",
        "fw_cfg_kernel.s",
        LOAD_INITRD,
        f"    mov edi, {FREE:#x}\n" + INITRD_DATA,
        (TRANSFER, "free RAM", "fw_cfg_read.s", "rep insb", f"1 byte at {FREE:#x} in free RAM"),
        machine=MICROVM,
        dma=False,
        caller="fw_cfg_kernel.s",
    ),
    broken(
        "command-line-over-the-gdt",
        "fw_cfg_kernel.s",
        LINE,
        "    mov edi, GDT_PADDR\n    call ebp\n",
        (TRANSFER, "firmware GDT", "fw_cfg_read.s", "out dx, eax", "6 bytes at 0x1000 in firmware GDT"),
        machine=MICROVM,
        caller="fw_cfg_kernel.s",
    ),
    broken(
        "descriptor-half-written",
        "fw_cfg.s",
        HIGH_HALF,
        "",
        (UNWRITTEN, "fw_cfg control", "fw_cfg_read.s", "out dx, eax", "reads 16 bytes, of which nobody has written 8-11"),
        machine=MICROVM,
    ),
    broken(
        "module-list-half-written",
        "fw_cfg_kernel.s",
        RESERVED_FIELD,
        "",
        (UNWRITTEN, "the module list", "handoff.s", "jmp dword ptr [ENTRY_POINTER]",
         "the kernel is handed the module list, 32 bytes, of which nobody has written 28-31"),
        machine=MICROVM,
    ),
    broken(
        "store-to-where-tables-may-go",
        "handoff.s",
        EBX,
        "    mov dword ptr [0x300000], 1\n" + EBX,
        (STORE, "free RAM", "handoff.s", "mov dword ptr [0x300000], 1", "4 bytes at 0x300000 in free RAM"),
        machine=MICROVM_ACPI,
    ),
)  # fmt: skip


def line_of(mutant, file, text):
    """Where a line stands in the sources that the mutant was built of, as Place.source has it."""
    source = mutant.sources().get(file) or asm_source(file)
    numbers = [number for number, line in enumerate(source.split("\n"), 1) if line.split("#")[0].strip() == text]
    return [f"{file}:{number}" for number in numbers]


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.mutant.name)
def test_each_mistake_is_told_with_its_line(case):
    mutant = case.mutant
    blob = build(mutant.machine, sources=mutant.sources())
    findings, _ = sanitize(mutant.machine, blob, dma=mutant.dma, reserved=(RESERVED,), instructions=60_000)
    assert [finding.kind for finding in findings] == [told.kind for told in case.found]
    for finding, told in zip(findings, case.found, strict=True):
        assert finding.owner == told.owner or finding.owner.startswith(told.owner + " ")
        assert finding.text == told.text
        assert finding.place.source in line_of(mutant, told.file, told.text)
        assert told.words in finding.detail
    if case.caller:
        assert findings[0].caller.source.startswith(case.caller + ":")
