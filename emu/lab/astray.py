"""The table of broken firmwares, beside those of mutants.py: most go astray before the handoff."""

from typing import Final, NamedTuple

from pvhboot.shim.machines import MICROVM, Q35

from .mutant import Mutant

_EBX = "    mov ebx, START_INFO_PADDR\n"
_CLD = "    cld\n"
_FAR_JUMP = "    data32 ljmp SEL_CODE32, protected_mode"
_LGDT = "    lgdtd cs:[rom_gdtr - RESET_CS_BASE]"
_BY_HAND = """\
    .byte 0x2e, 0x0f, 0x01, 0x16        # lgdt, by hand, of
    .word rom_gdtr - RESET_CS_BASE"""
_RELOAD = "    mov eax, SEL_DATA32\n    mov ds, eax\n    mov es, eax\n    mov ss, eax\n"
_INITRD = "initrd_free:\n\n    mov edi, eax\n"
_UPPER_HALF = "    mov dword ptr [edi + HVM_MODLIST_ENTRY_PADDR + 4], eax\n"
_ROM_STACK = "    mov esp, offset rom_gdt\n    push 0x1234\n    ret\n"
_KEY = "    movzx eax, word ptr [esi + FW_CFG_FILE_SELECT] "
_FETCHED = "    call ebp\n    mov edi, MODLIST_PADDR\n"
_CUT_LINE = "    mov eax, dword ptr [ebx + HVM_START_INFO_CMDLINE_PADDR]\n    mov byte ptr [eax + 2], 0\n"


def _initrd_at(paddr: int) -> str:
    told = f"    mov eax, {paddr:#x}\n    mov dword ptr [MODLIST_PADDR + HVM_MODLIST_ENTRY_PADDR], eax\n"
    return f"initrd_free:\n{told}    mov edi, eax\n"


def _paging(directory: int) -> str:
    """Maps the 4 MiB at 0, and those that the ROM lies in, to themselves; the assembly that turns paging on is in front."""
    return (
        f"    mov dword ptr [{directory:#x}], 0x83\n    mov dword ptr [{directory + 0xFFC:#x}], ROM_PAGE\n"
        f"    mov eax, 0x10\n    mov cr4, eax\n    mov eax, {directory:#x}\n    mov cr3, eax\n"
        "    mov eax, cr0\n    or eax, 0x80000000\n    mov cr0, eax\n"
    )


_ON = _EBX + _paging(0x90000)


class Astray(NamedTuple):
    """A firmware, and what is the likeliest cause of its failure on Unicorn; what on KVM, if that is another, None if it cannot
    be tried there."""

    mutant: Mutant
    title: str
    on_kvm: str | None = ""


ASTRAY: Final = tuple(
    Astray(*case)
    for case in (
        (Mutant("no-far-jump", "realmode.s", _FAR_JUMP, "    jmp protected_mode"), "no far jump after CR0.PE was set"),
        (
            Mutant("far-jump-cut", "realmode.s", _FAR_JUMP, "    ljmp SEL_CODE32, protected_mode - RESET_CS_BASE"),
            "the far jump's offset is cut to 16 bits",
        ),
        (
            # The assembler refuses the instruction.
            Mutant("lgdt-cut", "realmode.s", _LGDT, _BY_HAND),
            "lgdt has loaded only 24 bits of the GDT's address",
        ),
        (
            Mutant("code-not-present", "tables.s", ".quad DESC_CODE32", ".quad 0x00cf1b000000ffff"),
            "the descriptor of selector 0x10 is not marked present",
        ),
        (
            Mutant("far-jump-to-data", "realmode.s", "ljmp SEL_CODE32", "ljmp SEL_DATA32"),
            "selector 0x18 is no code segment, and is loaded into cs",
        ),
        (
            Mutant("far-jump-with-a-level", "realmode.s", "ljmp SEL_CODE32", "ljmp SEL_CODE32 + 1"),
            "selector 0x11 has RPL 1, and is loaded into cs",
        ),
        (
            Mutant("selector-beyond-the-gdt", "flat32.s", "    mov eax, SEL_DATA32\n", "    mov eax, 0x48\n"),
            "the GDT's limit is too small for selector 0x48",
        ),
        (
            Mutant("null-stack", "flat32.s", "    mov eax, SEL_DATA32\n", "    xor eax, eax\n"),
            "a null selector is loaded into ss",
        ),
        (
            Mutant("read-only-stack", "tables.s", ".quad DESC_DATA32", ".quad DESC_DATA32 & ~(1 << 41)"),
            "the stack's segment, selector 0x18, is not writable",
        ),
        (
            Mutant("ltr-twice", "handoff.s", _EBX, _EBX + "    mov eax, SEL_TSS\n    ltr ax\n"),
            "the TSS of selector 0x8 is busy already",
        ),
        (
            Mutant("ltr-of-data", "handoff.s", "    mov eax, SEL_TSS\n", "    mov eax, SEL_DATA32\n"),
            "selector 0x18 is no TSS",
        ),
        (
            Mutant("far-jump-in-real-mode", "reset.s", "    jmp real_mode ", "    ljmp 0xf000, 0x8000 "),
            "a far jump in real mode has left the ROM",
        ),
        (
            Mutant("no-stack", "flat32.s", "    mov esp, STACK_TOP\n", "    xor esp, esp\n    call 1f\n1:  ret\n"),
            "the stack was never set up",
        ),
        (
            Mutant("stack-in-the-rom", "flat32.s", "    mov esp, STACK_TOP\n", _ROM_STACK),
            "the stack lies in the ROM",
        ),
        (
            Mutant("jump-into-zeros", "flat32.s", _CLD, "    mov eax, 0x200000\n    jmp eax\n"),
            "zeros are executed: a jump to where no code is",
        ),
        (
            Mutant("zeros-up-to-the-kernel", "flat32.s", _CLD, "    mov eax, 0x3ffc0\n    jmp eax\n"),
            "zeros are executed: a jump to where no code is",
        ),
        (
            Mutant("jump-to-nowhere", "flat32.s", _CLD, "    mov eax, 0xd0000000\n    jmp eax\n"),
            "a jump to where no memory is",
        ),
        (
            Mutant("waits-for-a-port", "flat32.s", _CLD, "1:  in al, 0x64\n    test al, 2\n    jnz 1b\n", machine=MICROVM),
            "a loop waits for port 0x64",
        ),
        (Mutant("loop-without-end", "flat32.s", _CLD, "1:  jmp 1b\n"), "an endless loop"),
        (Mutant("loop-that-waits", "flat32.s", _CLD, "1:  cmp dword ptr [0x500], 1\n    jne 1b\n"), "an endless loop"),
        (Mutant("hlt", "flat32.s", _CLD, "    hlt\n"), "the firmware has halted itself"),
        (Mutant("ud2", "flat32.s", _CLD, "    ud2\n"), "#UD (invalid opcode), and nobody handles it"),
        (
            Mutant("divide-by-zero", "flat32.s", _CLD, "    xor ecx, ecx\n    div ecx\n"),
            "#DE (divide error), and nobody handles it",
        ),
        (Mutant("bios-call", "flat32.s", _CLD, "    int 0x10\n"), "a call of a BIOS, int 0x10, and there is none"),
        (
            Mutant("reset-by-port", "flat32.s", _CLD, "    mov al, 0xfe\n    out 0x64, al\n    hlt\n", machine=Q35),
            "the firmware has reset the machine",
        ),
        (
            Mutant("paging-without-a-map", "handoff.s", _EBX, _ON.replace("ROM_PAGE", "0")),
            "paging was turned on, and the code behind is not mapped",
            None,  # a KVM in software refuses such page tables at once
        ),
        (Mutant("paging-left-on", "handoff.s", _EBX, _ON.replace("ROM_PAGE", "0xffc00083")), "paging is left on", None),
        (
            Mutant("segments-not-loaded", "flat32.s", _RELOAD, ""),
            "data segments were never loaded in protected mode: ds, es, ss",
            "a data segment still has its limit of real mode",
        ),
        (
            Mutant("ebx-at-an-offset", "handoff.s", _EBX, "    mov ebx, START_INFO_PADDR + 8\n"),
            "ebx does not point to start_info",
        ),
        (
            Mutant("initrd-low", "fw_cfg_kernel.s", _INITRD, _initrd_at(0x30000), machine=MICROVM),
            "the initrd is not where the host says",
        ),
        (
            Mutant("initrd-at-the-kernel", "fw_cfg_kernel.s", _INITRD, _initrd_at(0x40000), machine=MICROVM),
            "the initrd is not where the host says",
        ),
        (
            Mutant("initrd-upper-half", "fw_cfg_kernel.s", _UPPER_HALF, "", machine=MICROVM, dirty=True),
            "the upper half of the initrd's address is garbage",
        ),
        (
            Mutant(
                "memmap-cut",
                "handoff.s",
                _EBX,
                _EBX + "    imul eax, dword ptr [ebx + HVM_START_INFO_MEMMAP_ENTRIES], SIZEOF_HVM_MEMMAP_ENTRY\n"
                "    mov dword ptr [eax + MEMMAP_PADDR - SIZEOF_HVM_MEMMAP_ENTRY + 4], 0\n",
                machine=MICROVM,
            ),
            "the address of a range above 4 GiB is cut to 32 bits",
        ),
        (
            Mutant("cmdline-cut", "handoff.s", _EBX, _EBX + _CUT_LINE),
            "the command line is cut off",
        ),
        (
            Mutant("key-not-swapped-by-port", "e820.s", _KEY, _KEY + "\n    xchg al, ah\n", machine=MICROVM, dma=False),
            "a key of fw_cfg was not swapped",
        ),
        (
            Mutant("dma-length-not-swapped", "fw_cfg_kernel.s", "    bswap ecx\n" + _FETCHED, _FETCHED, machine=MICROVM),
            "the length in a DMA descriptor was not swapped",
        ),
    )
)  # fmt: skip
