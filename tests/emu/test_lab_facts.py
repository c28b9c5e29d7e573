"""`pvhboot lab check` says the first thing that is wrong: of each exercise, and of whatever else somebody has edited."""

import re

import pytest
from pvhboot.emu.lab import stock
from pvhboot.emu.lab.checking import check
from pvhboot.emu.lab.directory import Directory, write_new
from pvhboot.emu.lab.exercises import EXERCISES, find
from pvhboot.emu.lab.mending import mended
from pvhboot.shim.image import build

CPUID = {"unicorn": "0x756e6547", "kvm": "0x68747541"}  # ebx of leaf 0: "Genu", and of an AMD host "Auth"
BY_FW_CFG = "by DMA, started at fw_cfg_read.s:21, called from fw_cfg_kernel.s:70"
FACTS = {
    "stranger": "the magic of start_info is 0x336ec587, not 0x336ec578 (stored at start_info.s:10)",
    "one-clause": "TR is null, with the limit 0xffff, not 0x67: no ltr was executed",
    "early-end": "GDTR's limit is 0x1e, and the descriptor of selector 0x18 ends at 0x1f (lgdt at realmode.s:17)",
    "phantom": "memmap_entries is 5, but 4 entries are there (stored at start_info.s:22)",
    "slow-motion": "CR0 is 0x60000011, not 0x11: CD, NW set (mov at realmode.s:19)",
    "nothing-there": "start_info (%ebx) is at 0, which means that there is none (xor at handoff.s:42)",
    "locked-door": "the descriptor of selector 0x10 is 0x00cf1b000000ffff: P (bit 47) is 0, not 1 "
    "(it stands at tables.s:7; loaded by ljmp at realmode.s:20)",
    "wrong-turn": "the far jump goes to 0x8015, not to 0xffff8015, where protected_mode is (ljmp at realmode.s:20)",
    "two-faced": "ds, es and ss still have the limit of real mode, 0xffff, not 0xffffffff "
    "(not loaded after the ljmp at realmode.s:20)",
    "wrong-table": "GDTR's base is 0x00ff8200, not 0xffff8200 (lgdt at realmode.s:17)",
    "lost-pointer": "ebx is CPUID, not 0x6000, where start_info lies (cpuid at handoff.s:40)",
    "enormous": "ecx is 0x14000000, not 0x14: the size of a file, big-endian, as fw_cfg tells it (mov at e820.s:42)",
    "trampled": "708 bytes at 0x100000 go over the kernel, which lies at 0x100000-0x106000: they are the initrd's, and belong "
    f"to 0x1ffff000 ({BY_FW_CFG})",
    "claimed-twice": "entry 2 of the memory map, 0x100000-0x20000000 (RAM), overlaps entry 3, 0x1ffff000-0x20000000 (ACPI) "
    "(stored at memmap_insert.s:28, called from acpi.s:209)",
    "big-machine": "paddr of module 0 is 0x1ff000, not 0xbffff000: what 32 bits hold of 0x1001ff000, at the end of RAM "
    "(stored at fw_cfg_kernel.s:75)",
}
by_name = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


@pytest.fixture(autouse=True, scope="module")
def built_once():
    """What one engine boots, the other one boots, too."""
    blobs = {}

    def build_once(machine, *, sources):
        key = machine.name, tuple(sources.items())
        if key not in blobs:
            blobs[key] = build(machine, sources=sources)
        return blobs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock, "build", build_once)
        yield


@pytest.fixture
def directory_of(tmp_path):
    """An exercise as `lab new` writes it."""

    def write(exercise):
        write_new(exercise, str(tmp_path / exercise.name))
        return Directory(str(tmp_path / exercise.name))

    return write


def test_of_each_exercise_it_is_known_what_is_to_be_said():
    assert list(FACTS) == [exercise.name for exercise in EXERCISES]


@by_name
def test_the_first_fact_of_an_exercise(exercise, engine_name, directory_of):
    directory = directory_of(exercise)
    result = check(directory, engine_name)
    told = str(result.fact)
    if exercise.name == "lost-pointer" and engine_name == "kvm":
        told = re.sub("0x[0-9a-f]{8}", CPUID["kvm"], told, count=1)  # whatever processor this is
    assert told == FACTS[exercise.name].replace("CPUID", CPUID[engine_name])
    sources = directory.sources()
    assert [(line.file, line.number) for line in result.lines] == result.fact.places
    assert all(line.text == sources[line.file].splitlines()[line.number - 1] for line in result.lines)


@by_name
def test_each_solution_passes(exercise, engine_name, directory_of):
    directory = directory_of(exercise)
    directory.keep_sources(mended(exercise, directory.sources()))
    result = check(directory, engine_name)
    assert result.fact is None
    assert result.outcome.ok
    assert result.clauses_met == len(result.outcome.findings)


# What else a student may do to the sources of a mended exercise: the file, what is replaced by what, and what is said.
BARE, MICROVM = "stranger", "trampled"
EBX = "    mov ebx, START_INFO_PADDR\n"
CLD = "    cld\n"
LOAD_INITRD = "    mov eax, FW_CFG_READ_INITRD_DATA\n"
EDITS = {
    "no lgdt": (
        BARE, "realmode.s", "    lgdtd cs:[rom_gdtr - RESET_CS_BASE]", "",
        "GDTR is as the reset has left it, with the base 0x0: no lgdt was executed",
    ),
    "PE never set": (
        BARE, "realmode.s", "    mov cr0, eax  ", "    # ",
        "CR0 is 0x60000010 at the far jump: PE is 0, not 1, so that it is one of real mode (ljmp at realmode.s:20)",
    ),
    "no far jump": (
        BARE, "realmode.s", "    data32 ljmp SEL_CODE32, protected_mode", "    jmp protected_mode",
        "CS is still real mode's, 16-bit code, in protected mode: no far jump was executed (jmp, which is none, at "
        "realmode.s:20)",
    ),
    "a null stack": (
        BARE, "flat32.s", "    mov ss, eax\n", "    xor eax, eax\n    mov ss, eax\n",
        "ss is loaded with the null selector (mov at flat32.s:13)",
    ),
    "a data segment for CS": (
        BARE, "realmode.s", "ljmp SEL_CODE32", "ljmp SEL_DATA32",
        "the descriptor of selector 0x18 is 0x00cf93000000ffff: no code segment (it stands at tables.s:8; loaded by ljmp at "
        "realmode.s:20)",
    ),
    "a TSS twice": (
        BARE, "handoff.s", EBX, EBX + "    mov eax, SEL_TSS\n    ltr ax\n",
        "the descriptor of selector 0x8 is 0x00008b0000000067: its type is 0xb, not 0x9, an available TSS (loaded by ltr at "
        "handoff.s:40)",
    ),
    "one segment forgotten": (
        BARE, "flat32.s", "    mov es, eax\n", "",
        "es still has the limit of real mode, 0xffff, not 0xffffffff (not loaded after the ljmp at realmode.s:20)",
    ),
    "no G": (
        BARE, "tables.s", ".quad DESC_DATA32", ".quad DESC_DATA32 & ~(1 << 55)",
        "ds has limit 0xfffff, not 0xffffffff (mov at flat32.s:10; descriptor 0x18 at tables.s:8)",
    ),
    "a small TSS": (
        BARE, "tables.s", ".quad DESC_TSS", ".quad DESC_TSS - 1", "TR: its limit is 0x66, not 0x67 (ltr at handoff.s:16)",
    ),
    "CR4": (
        BARE, "handoff.s", EBX, f"    mov eax, 0x10\n    mov cr4, eax\n{EBX}", "CR4 is 0x10 (PSE), not 0 (mov at handoff.s:39)",
    ),
    "interrupts": (BARE, "handoff.s", EBX, f"{EBX}    sti\n", "EFLAGS is 0x[0-9a-f]+: IF is set, .* (sti at handoff.s:39)"),
    "no MTRR": (
        BARE, "handoff.s", "    wrmsr\n", "",
        "MTRRdefType is 0x0, not 0x806: memory is not write-back by default; no wrmsr was executed",
    ),
    "a store to the ROM": (
        BARE, "handoff.s", EBX, f"    mov dword ptr [rom_gdt], 1\n{EBX}",
        "the ROM is overwritten, and must not be: 4 bytes at 0xffff[0-9a-f]{4} (mov at handoff.s:38)",
    ),
    "one byte over the kernel": (
        BARE, "handoff.s", EBX, f"    mov byte ptr [0x100010], 0x90\n{EBX}",
        "one byte at 0x100010 goes over the kernel, which lies at 0x100000-0x106000 (stored at handoff.s:38)",
    ),
    "a privilege level": (
        BARE, "realmode.s", "ljmp SEL_CODE32", "ljmp SEL_CODE32 + 1",
        "cs is loaded with selector 0x11: its RPL is 1, not 0 (ljmp at realmode.s:20)",
    ),
    "an LDT": (
        BARE, "flat32.s", "    mov eax, SEL_DATA32\n", "    mov eax, SEL_DATA32 + 4\n",
        "ds is loaded with selector 0x1c: its bit 2 is 1, not 0, and there is no LDT (mov at flat32.s:10)",
    ),
    "16-bit code": (
        BARE, "tables.s", ".quad DESC_CODE32", ".quad DESC_CODE32 & ~(1 << 54)",
        "cs is 16-bit code: D (bit 54) of its descriptor is 0, not 1 (ljmp at realmode.s:20; descriptor 0x10 at tables.s:7)",
    ),
    "a base": (
        BARE, "tables.s", ".quad DESC_DATA32", ".quad DESC_DATA32 + (1 << 16)",
        "ds has base 0x1, not 0 (mov at flat32.s:10; descriptor 0x18 at tables.s:8)",
    ),
    "a GDT elsewhere": (
        BARE, "tables.s", "    .long GDT_PADDR", "    .long 0",
        "GDTR's base is 0x0, and where selector 0x8 leads to, at 0x8, there are zeros (lgdt at handoff.s:14)",
    ),
    "a map elsewhere": (
        BARE, "start_info.s", "MEMMAP_PADDR], MEMMAP_PADDR", "MEMMAP_PADDR], 0x300000",
        "memmap_paddr is 0x300000, and nobody has stored an entry there (stored at start_info.s:21)",
    ),
    "start_info elsewhere": (
        BARE, "start_info.s", "    mov edi, START_INFO_PADDR\n", "",
        "start_info is at 0x20000, not at 0x6000, where ebx points (stored at start_info.s:9)",
    ),
    "an entry that is not copied": (
        BARE, "memmap.s", "    dec edx\n    jnz memmap_entry\n", "",
        "entry 1 of the memory map is missing: there should be 2, as memmap_entries says (entry 0 is stored at memmap.s:14)",
    ),
    "hlt": (BARE, "flat32.s", CLD, "    hlt\n", "the firmware has halted itself: .* (flat32.s:14)): hlt"),
    "a division by zero": (
        BARE, "flat32.s", CLD, "    xor ecx, ecx\n    div ecx\n",
        "#DE (divide error), and nobody handles it: .* (flat32.s:15)): div ecx",
    ),
    "nothing at the reset vector": (
        BARE, "reset.s", "    jmp real_mode ", "    hlt ", "the firmware has halted itself: .* (reset.s:9)): hlt",
    ),
    "no version": (
        BARE, "start_info.s", "    mov dword ptr [edi + HVM_START_INFO_VERSION], HVM_START_INFO_VERSION_VALUE\n", "",
        "version of start_info is 0x0, not 0x1 (nobody stores it)",
    ),
    "a wrong version": (
        BARE, "start_info.s", "], HVM_START_INFO_VERSION_VALUE", "], 0",
        "version of start_info is 0x0, not 0x1 (stored at start_info.s:11)",
    ),
    "too few entries": (
        BARE, "modules.s", "    mov ebx, dword ptr [ebp + PARAMS_HEADER_E820_ENTRIES]\n",
        "    mov ebx, dword ptr [ebp + PARAMS_HEADER_E820_ENTRIES]\n    dec ebx\n",
        "memmap_entries is 1, but 2 entries are there (stored at start_info.s:22)",
    ),
    "the reserved field": (
        BARE, "memmap.s", "    xor eax, eax   ", "    mov eax, 5     ",
        "entry 0 of the memory map has 0x5 in its reserved field, not 0 (stored at memmap.s:14)",
    ),
    "a list without modules": (
        BARE, "start_info.s", "    jz start_info_done\n", "",
        "the list has an address but no module: FreeBSD halts on that (stored at start_info.s:25)",
    ),
    "an unsorted map": (
        "big-machine", "e820.s", "e820_sort:\n", "    jmp e820_sorted\ne820_sort:\n",
        "of the memory map entry 4, 0xffff0000-0x100000000 (reserved), comes after 3, 0x100000000-0x100200000 (RAM) "
        "(stored at e820.s:91)",
    ),
    "RAM that is none": (
        MICROVM, "e820.s", "    sub dword ptr [esi + E820_ENTRY_SIZE], LOW_HOLE_END\n", "    clc\n",
        "entry 2 of the memory map is 0x100000-0x20100000 (RAM), not 0x100000-0x20000000 (RAM) (stored at e820.s:82)",
    ),
    "no ROM in the map": (
        MICROVM, "e820.s", "    mov ecx, dword ptr [esi + MACHINE_HIGH_WORDS - MACHINE_HIGH]\n", "    xor ecx, ecx\n",
        "the memory map has no entry for 0xffff0000-0x100000000 (reserved) (stored at e820.s:82)",
    ),
    "a command line that is none": (
        MICROVM, "start_info.s", "CMDLINE_PADDR], esi", "CMDLINE_PADDR], 0",
        "cmdline_paddr is 0x0: the command line is absent, planned was '' (stored at start_info.s:17)",
    ),
    "an initrd over the command line": (
        MICROVM, "fw_cfg_kernel.s", "    mov edi, eax\n    mov eax, FW", "    mov edi, esi\n    mov eax, FW",
        "the command line is '0707.*', planned was '' (by DMA, started at fw_cfg_read.s:21, called from fw_cfg_kernel.s:70)",
    ),
    "an initrd that is not told": (
        MICROVM, "fw_cfg_kernel.s", "mov edx, 1\ninitrd_done", "xor edx, edx\ninitrd_done",
        "nr_modules is 0, planned were 1 (stored at start_info.s:13)",
    ),
    "an initrd that is not fetched": (
        MICROVM, "fw_cfg_kernel.s", "    call ebp\n    mov edi, MODLIST_PADDR\n", "    mov edi, MODLIST_PADDR\n",
        "the initrd is not at 0x1ffff000, where it belongs: nobody has put it there",
    ),
    "an initrd that is cut": (
        MICROVM, "fw_cfg_kernel.s",
        "    bswap ecx\n    call ebp\n    mov edi, M", "    shr ecx, 1\n    bswap ecx\n    call ebp\n    mov edi, M",
        "of the initrd 354 bytes are transferred to 0x1ffff000, not 708 (by DMA, started at fw_cfg_read.s:21, called from "
        "fw_cfg_kernel.s:71)",
    ),
    "another item": (
        MICROVM, "fw_cfg_kernel.s", LOAD_INITRD, LOAD_INITRD.replace("INITRD", "CMDLINE"),
        "module .* was changed at 0x1ffff000 (by DMA, started at fw_cfg_read.s:21, called from fw_cfg_kernel.s:70)",
    ),
    "the number of files": (
        MICROVM, "e820.s", "    bswap ebx\n", "",
        "ebx is 0x3000000, not 0x3: the number of files, big-endian, as fw_cfg tells it (mov at e820.s:15)",
    ),
    "a panic": (
        MICROVM, "e820.s", "    dec edx\n    jnz e820_bad_low\n", "    jmp e820_bad_low\n",
        "the firmware stops itself with E820_LOW: the memory map has no RAM from 0 to above 1 MiB "
        "(jmp at e820.s:87 leads there)",
    ),
    "tables that are not told": (
        "claimed-twice", "start_info.s", "RSDP_PADDR], eax\n.endif", "RSDP_PADDR], 0\n.endif",
        "rsdp_paddr is 0, and the host has ACPI tables (stored at start_info.s:30)",
    ),
}  # fmt: skip
# Who reads, writes and jumps where is seen on Unicorn alone; and a loop ends soon there, on KVM only when its time is over.
ON_UNICORN = {
    "a loop": (
        BARE, "flat32.s", CLD, "1:  jmp 1b\n",
        "an endless loop: 0x[0-9a-f]+ (protected_mode+0x10 (flat32.s:14)): jmp 0x[0-9a-f]+",
    ),
    "paging": (
        BARE, "realmode.s", "    mov eax, CR0_PE\n", "    mov eax, CR0_PE | 1 << 31\n",
        "CR0 is 0x80000011: PG is 1, not 0, with CR3 at 0x0 (mov at realmode.s:19)",
    ),
    "a TSS for CS": (
        BARE, "realmode.s", "ljmp SEL_CODE32", "ljmp SEL_TSS",
        "selector 0x8 is that of a TSS, and no code segment's: the far jump switches tasks (ljmp at realmode.s:20)",
    ),
    "past the reset vector": (
        BARE, "reset.s", "    jmp real_mode ", "    nop # ",
        "the CPU leaves the firmware: it goes on at 0xfffffff1 in the ROM (0xffff0000-0xffffffff), which is data .* "
        "(nop at reset.s:9)",
    ),
    "within an instruction": (
        BARE, "realmode.s", "SEL_CODE32, protected_mode", "SEL_CODE32, protected_mode + 1",
        "the CPU leaves the firmware: it goes on at 0xffff8019 in the ROM (0xffff0000-0xffffffff), within the instruction .* "
        "(ljmp at realmode.s:20)",
    ),
    "memory that nobody has written": (
        BARE, "handoff.s", EBX, f"    mov eax, dword ptr [0x8000]\n{EBX}",
        "the firmware reads 4 bytes that nobody has written, at 0x8000 in module list (0x8000-0xbfff) (mov at handoff.s:38)",
    ),
    "memory that is not the firmware's": (
        BARE, "handoff.s", EBX, f"    mov byte ptr [0x300000], 1\n{EBX}",
        "the firmware stores 1 byte at 0x300000 in free RAM (0x106000-0x1fffffff), which is not its memory "
        "(mov at handoff.s:38)",
    ),
    "a jump to nothing": (
        BARE, "flat32.s", CLD, "    mov eax, 0x200000\n    jmp eax\n",
        "the CPU leaves the firmware: it goes on at 0x200000 in free RAM (0x106000-0x1fffffff), which nobody has written "
        "(jmp at flat32.s:15)",
    ),
    "a field that nobody stores": (
        BARE, "start_info.s", "    mov dword ptr [edi + HVM_START_INFO_FLAGS], eax\n", "",
        "flags of start_info, 4 bytes at 0x6008: not all are stored by anybody",
    ),
    "half a DMA descriptor": (
        MICROVM, "fw_cfg.s", "    mov dword ptr [FW_CFG_DMA_PADDR + FW_CFG_DMA_ADDRESS], 0 ", "    # ",
        "a device reads 16 bytes, of which nobody has written 8-11, at 0x1020 in fw_cfg control (0x1020-0x1043) (out at "
        "fw_cfg_read.s:21, called from e820.s:14)",
    ),
}  # fmt: skip
ON_KVM = {
    "within an instruction": (
        BARE, "realmode.s", "SEL_CODE32, protected_mode", "SEL_CODE32, protected_mode + 1",
        "the CPU leaves the firmware: it goes on at 0xffff8019, where no instruction begins (ljmp at realmode.s:20)",
    ),
    "a return to nowhere": (
        "claimed-twice", "memmap_insert.s", "    pop esi\n    pop ecx\n", "    pop ecx\n",
        "the CPU leaves the firmware: it goes on at 0x0, and the kernel is entered at 0x100000 (ret at "
        "memmap_insert.s:30, called from acpi.s:211)",
    ),
}  # fmt: skip
EDITED_ON = [
    pytest.param(engine, case, id=f"{engine}-{name}")
    for engine, more in {"unicorn": ON_UNICORN, "kvm": ON_KVM}.items()
    for name, case in {**EDITS, **more}.items()
]
ANY = re.compile(r"\.\*|0x\[0-9a-f\]\+|\[0-9a-f\]\{4\}")  # of what is said, what a test leaves open


@pytest.mark.parametrize(("engine_name", "case"), EDITED_ON, indirect=["engine_name"])
def test_another_mistake_is_told_as_well(case, engine_name, directory_of):
    name, file, old, new, said = case
    directory = directory_of(find(name))
    sources = mended(directory.exercise, directory.sources())
    assert sources[file].count(old) == 1
    directory.keep_sources({**sources, file: sources[file].replace(old, new)})
    fact = str(check(directory, engine_name).fact)
    pattern = "".join(part if ANY.fullmatch(part) else re.escape(part) for part in re.split(f"({ANY.pattern})", said))
    assert re.fullmatch(pattern, fact), f"{fact}\n{said}"
