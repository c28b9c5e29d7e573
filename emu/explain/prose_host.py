"""The chapters on what the host tells, and what the firmware makes of it for the kernel."""

from typing import Final

from . import division as names
from .outline import Outline, When

HOST_CHAPTERS: Final = (
    Outline(
        names.PARAMS,
        "What to boot, in a block in the ROM",
        (
            "Where is the kernel, how much RAM is there, what is the command line? A PC's firmware asks devices. The machine "
            "bare has none that it could ask, so whoever starts the machine (the virtual machine monitor, or VMM) writes the "
            "answers into the ROM before the first instruction: a block at {params:#x}, with a header and behind it the memory "
            "map, the list of modules, and their command lines.",
            "The firmware trusts none of it. Each count is bounded before it is multiplied, so that no product can wrap "
            "around, and the parts must add up to the size that the header gives. A block that does not hold ends in a panic "
            "with a name, and not in a wild store.",
        ),
        ("pvhboot docs/params.md (the block, byte by byte)",),
        registers={"ebp": "the block", "esi": "the first entry of the memory map in it"},
        exhibits=("params",),
    ),
    Outline(
        names.CHIPSET,
        "What a PC's firmware must still do",
        (
            "A PC has a chipset, and some of its registers must be programmed before what follows can work. They are registers "
            "of PCI configuration space: 256 bytes for each function of each device. One writes an address to port "
            "{pci_address:#x}, which names bus, device, function and register, and the 32 bits that are there appear at port "
            "{pci_data:#x}. pci_store.s goes through a list of such stores.",
            "PAM, the programmable attribute map: from 0xc0000 to 0xfffff, where a PC has ROMs, loads and stores go to the ROM "
            "until PAM says that they go to the RAM behind: two bits for each piece, one for loads and one for stores, and so "
            "3 is RAM for both. The ACPI tables shall lie there, so it must be RAM before they come.",
            "PMBASE: from which I/O port on the power management answers. The ACPI tables tell the kernel of it, and QEMU "
            "writes them from what this register holds when they are first read. So it must be set before that.",
            When(
                "has_pciexbar",
                "PCIEXBAR: where the window on the whole configuration space of PCI Express lies in memory (ECAM), 4 KiB for "
                "each function. The same holds of it: first the register, then the tables.",
            ),
            "To look for PCI devices and to give them addresses, as a PC's firmware does, is left to the kernel: Linux can.",
        ),
        (
            "PCI Local Bus Specification 3.0, 3.2.2.3.2 (the two ports)",
            "Intel 82441FX datasheet 290549, section 3 (PAM), and 82371AB datasheet 290562, 7.1 (PMBASE) for pc",
            "Intel 82Q35 datasheet 316966, 5.1 (PAM, PCIEXBAR), and ICH9 datasheet 316972, 13.1 (PMBASE) for q35",
        ),
        routines=("config_stores",),
    ),
    Outline(
        names.FW_CFG,
        "Asking the host what to boot",
        (
            "Where is the kernel, how much RAM is there, what is the command line? QEMU answers by a device that is made for "
            "that, fw_cfg; here pvhboot plays its part. It holds items with numbers (keys), and one of them is a directory of "
            "files with names. One writes a key to port {selector:#x} and reads the item from port {data_port:#x}, a byte at a "
            "time.",
            When(
                "dma_used",
                "A byte at a time is slow, as each access leaves the virtual machine. So there is a second way, DMA: write "
                "into memory what you want (16 bytes, the descriptor: what to do, how many bytes, where to), write the "
                "descriptor's address to a register of 8 bytes at port {dma_port:#x}, and the device puts the bytes into "
                "memory itself. What starts it is the lower half of the address, at port {dma_low_port:#x}; by the next "
                "instruction they are there.",
            ),
            When(
                "asked_for_dma",
                "Is the device there? A port that nobody answers reads as all ones. This one, read, gives {signature:#x}: with "
                "the lowest byte first these are the letters {signature_text}. One access tells that there is fw_cfg and that "
                "it has DMA.",
            ),
            When(
                "dma_used",
                "The descriptor, the register for its address and the directory are big-endian, the most significant byte "
                "first, since QEMU serves processors of both kinds. x86 is little-endian. That is what bswap is for, and why "
                "the descriptor at {descriptor:#x} is announced as {descriptor_swapped:#x}. The numbers that the items hold "
                "are little-endian, on a PC.",
            ),
            When(
                "dma_used",
                "The register for that is read first, and here nobody answers: this host has no DMA, and every byte goes "
                "through the port. Is there a fw_cfg at all? The item with the key 0 is its signature, the letters QEMU.",
                unless=True,
            ),
            When(
                "has_e820",
                "The directory lists {files} files, with 64 bytes for each: size, key, and name. One of them is etc/e820, the "
                "memory map: it has the key {e820_key:#x} and {e820_size} bytes.",
            ),
        ),
        ("QEMU docs/specs/fw_cfg.rst (ports, DMA, directory)",),
        registers={"ebp": "the routine that reads an item"},
        routines=("fw_cfg_read_dma", "fw_cfg_read_pio"),
    ),
    Outline(
        names.MEMMAP,
        "The memory map, from e820 to PVH",
        (
            "Some physical addresses are RAM, some are devices, some are nothing, and a kernel has no safe way to find out by "
            "trying. It must be told. On a PC it asks the BIOS, by an interrupt with 0xe820 in a register. Here there is no "
            "such interrupt, and the name has stayed with the answer: a list of ranges, each with address, size and type, in "
            "20 bytes. PVH has the same three fields, and 4 bytes behind them that are 0, so that each entry begins at a "
            "multiple of 8.",
            When(
                "bare",
                "The host has written the list as the kernel shall see it, the ROM included. So it is copied, entry by entry, "
                "with four bytes of 0 behind each: five words by rep movsd, one by stosd.",
            ),
            When(
                "bare",
                "The host's list has {host_ranges}. What it does not say is that a copy of the firmware's ROM lies in there, "
                "below 1 MiB, and the ROM itself in front of 4 GiB. So the firmware cuts what begins at 0 in two, around the "
                "hole below 1 MiB, and adds what it knows itself as reserved. A kernel must not take that for free space, to "
                "put a device there.",
                unless=True,
            ),
            When(
                "has_pciexbar",
                "So is the window on configuration space: Linux uses it only where the map, or an ACPI table, reserves it.",
            ),
            When(
                "bare",
                "Then the list is sorted, by exchanging neighbours that are in the wrong order, and each range must end before "
                "the next begins. That is made sure of here once, so that all code behind may rely on it. Linux sorts the list "
                "once more; not every kernel does.",
                unless=True,
            ),
        ),
        (
            "Xen xen/include/public/arch-x86/hvm/start_info.h (struct hvm_memmap_table_entry)",
            "ACPI specification 6.4, chapter 15 (the types of address ranges, and INT 15h with E820h)",
        ),
        registers={"ebx": "how many entries the map has"},
        exhibits=("memmap",),
    ),
    Outline(
        names.KERNEL,
        "Kernel, command line and initrd",
        (
            When(
                "bare",
                "The host has put the kernel and its modules into RAM already. What is left is to tell where they are, in the "
                "form that PVH wants: a list with 32 bytes for each module (address, size, address of its command line, "
                "reserved), and the command lines themselves, copied from the ROM into RAM.",
            ),
            When(
                "bare",
                "QEMU has read the kernel's ELF file and put its segments where they want to be. It tells entry, address and "
                "size, and the firmware looks whether that can be true: the kernel must lie in one range of RAM from the map, "
                "clear of the memory that the firmware works in, and the entry must lie in it. QEMU itself does not look.",
                unless=True,
            ),
            When(
                "bare",
                "The command line and the initrd QEMU has kept: the firmware asks for their sizes, checks the places, and "
                "fetches them to there. The initrd, if there is one, becomes the one entry of the module list.",
                unless=True,
            ),
            "An initrd is a small file system, for a kernel that has to load drivers before it can read its disk. To PVH it is "
            "a module like any other; Linux takes the first one for it.",
        ),
        (
            "Xen xen/include/public/arch-x86/hvm/start_info.h (struct hvm_modlist_entry)",
            "Xen xen/include/public/elfnote.h (XEN_ELFNOTE_PHYS32_ENTRY, by which a kernel names its entry)",
        ),
        registers={
            "esi": "the command line (0: none)",
            "edx": "how many modules there are",
            "ebx": "how many entries the map has",
        },
        exhibits=("kernel",),
    ),
    Outline(
        names.ACPI,
        "Tables that the host has written",
        (
            "ACPI tables tell a kernel what it cannot find out by itself: processors, interrupt controllers, how to switch the "
            "machine off. Part of them is code, for an interpreter in the kernel. QEMU knows its machine best and has written "
            "them. But tables point to one another, and each has a checksum, and QEMU does not know where the firmware will "
            "put them. So it leaves gaps, and sends a script that says how to fill them: the file etc/table-loader.",
            When(
                "has_script",
                "The firmware executes it, and is a linker for that while. Here the script has {script_commands}. ALLOCATE: "
                "give a file memory and fetch it. ADD_POINTER: add the address of one file to a field of another. "
                "ADD_CHECKSUM: make the bytes of a table add up to 0, modulo 256, by one byte of it.",
            ),
            When("writes_pointers", "WRITE_POINTER: tell the host an address."),
            When(
                "has_script",
                "The sums take their time: each byte is an add, and so {sum_instructions} of the {acpi_instructions} "
                "instructions of this chapter are in sum_bytes.",
            ),
            When(
                "has_rsdp",
                "The root of the tables is the RSDP, here at {rsdp:#x}. It leads to a list of tables, and of those the FACP "
                "leads to the DSDT, which is the code. The pages with the tables become a range of the memory map of their "
                "own, of the type ACPI: no RAM to be used, until the kernel has read them.",
            ),
            When("has_script", "This host has no such file, so it is a machine without ACPI.", unless=True),
        ),
        (
            "ACPI specification 6.4, 5.2.5 (RSDP), 5.2.6 (the head of each table, and its checksum)",
            "QEMU hw/acpi/bios-linker-loader.c (the commands of the script)",
        ),
        registers={"ebx": "how many entries the map has"},
        exhibits=("acpi",),
    ),
    Outline(
        names.TABLES,
        "Tables for whoever searches",
        (
            When(
                "smbios",
                "Nobody is told where SMBIOS is, the inventory of a machine that dmidecode prints: a kernel searches the 64 "
                "KiB in front of 1 MiB (the F segment) for the letters _SM_ or _SM3_, at every sixteenth byte. QEMU has the "
                "tables and this anchor as files. The firmware puts both there, writes the tables' address into the anchor, "
                "and mends the anchor's checksums.",
            ),
            "The MP table is what ACPI has replaced: which processors there are, and how interrupts are wired.",
            When("has_rsdp", "There are ACPI tables, which a kernel prefers: so none is made."),
            When(
                "mp_in_rom",
                "On this machine there is no ACPI. With one processor (the host was asked how many) the table is always the "
                "same, and is part of the ROM, which is to be seen below 1 MiB too. So there is nothing to write.",
            ),
            When(
                "mp_made",
                "On this machine there is no ACPI, so one is made: the processors are counted, the PCI interrupts are routed.",
            ),
        ),
        (
            "DMTF DSP0134, System Management BIOS Reference Specification, 5.2 (the anchor)",
            "Intel MultiProcessor Specification 1.4, chapter 4",
        ),
        registers={"ebx": "how many entries the map has"},
    ),
    Outline(
        names.START_INFO,
        "{start_info_size} bytes that lead to everything",
        (
            When(
                "own",
                "All is in place; what is missing is one address from which to find it. That is the structure hvm_start_info: "
                "a magic number by which a kernel knows it, a version, and for each thing its physical address and, where "
                "there can be several, a count. An address of 0 means that there is none.",
            ),
            When(
                "own",
                "The host has been asked for the last time, and what the kernel gets is in memory: the structure "
                "hvm_start_info, and all that it leads to. It has a magic number by which a kernel knows it, a version, and "
                "for each thing its physical address and, where there can be several, a count. An address of 0 means that "
                "there is none.",
                unless=True,
            ),
            "The structure may lie anywhere below 4 GiB, and what it leads to likewise. But Linux, FreeBSD and others map only "
            "the first GiB before they look at all of that. So below it is the place; not at 0, which stands for nothing; and "
            "not where the kernel is.",
        ),
        ("Xen xen/include/public/arch-x86/hvm/start_info.h (struct hvm_start_info)",),
        exhibits=("start_info",),
    ),
    Outline(
        names.STAGE,
        "A stage of somebody's own",
        (
            "This firmware was built with a custom stage: assembly of its user's that runs when start_info is complete and the "
            "kernel has not begun. It is called like a routine, and must leave all as it was but for what it has declared.",
        ),
        ("pvhboot docs/firmware.md (a custom stage)",),
    ),
)
