"""Lessons of mistakes in what the kernel is handed: start_info, the memory map, the initrd.

What is said of qboot was measured with Debian 12's (upstream commit 8ca302e).
"""

from typing import Final

from .exercise import Lesson

MAGIC: Final = Lesson(
    "The kernel looks at what %ebx points to, and does not know it.",
    "The kernel's entry is reached, and %ebx points to 56 bytes that look right. A kernel first makes sure that they are "
    "what it takes them for. Linux would stop there.",
    (
        "Which file writes the structure that %ebx points to?",
        "By what does a kernel know that a start_info is one? Compare its first four bytes with the ABI's.",
        'The magic is 0x336ec578, XEN_HVM_START_MAGIC_VALUE: "xEn3" with the top bit of the E set.',
    ),
    "The magic is a word with one bit set, to be neither text nor a likely number, and so it is copied digit by digit. A "
    "pointer in %ebx is what Multiboot hands over, too; by the magic a kernel makes sure that it leads to what it expects, and "
    "Linux stops if it does not (arch/x86/platform/pvh/enlighten.c: BUG). A constant with a name cannot be mistyped unnoticed.",
    "A magic number is there to be compared: take it from the header by its name.",
)

ONE_TOO_MANY: Final = Lesson(
    "The kernel's memory map ends with a range that nobody has told it.",
    "The firmware asks the host for its memory map, adds the range of the ROM, which only it knows, sorts the map and counts "
    "its ranges. The kernel gets one more than there is.",
    (
        "start_info says how many entries the map has. Where does that number come from?",
        "At the end of e820.s edi points behind the last entry. What is the length of the map divided by the size of an entry?",
        "ebx is to be that quotient, eax, as it is: mov ebx, eax.",
    ),
    "Behind the last entry lies whatever lies there: zeros after power on in an emulator, anything on a machine that was "
    "reset. Debian's qboot has this mistake, on pc and on microvm: its last entry is memory that nobody has written. Linux "
    "drops an entry without a size, so that it goes well as long as that memory is zero.",
    "Count the entries, not the slots; and test with memory that is not zero.",
)

AT_ZERO: Final = Lesson(
    "The kernel takes what it is given for nothing at all.",
    "All of start_info is right, and %ebx points to it. To a kernel, that address has a meaning of its own.",
    (
        "Where does start_info lie when the kernel is entered, and who has put it there?",
        "What is %ebx? In this ABI an address of 0 has a meaning.",
        "It must not lie at 0: leave it where it was made, and mov ebx, START_INFO_PADDR.",
    ),
    "start_info.h promises that nothing is ever loaded at address 0, so that a 0 in any of its address fields can mean: not "
    "there. Besides, the first page is where interrupt vectors and a BIOS's data have been for forty years: what lies there "
    "is overwritten first.",
    "Address 0 is a value with a meaning: nothing that somebody is to find may lie there.",
)

EBX_LOST: Final = Lesson(
    "start_info is complete and right, and the kernel is given another address.",
    "Everything that the kernel wants to know lies ready, below 1 MiB. It looks for it somewhere else. On two processors it "
    "is not even the same place.",
    (
        "Only the last instructions before the jump to the kernel matter: those of handoff.s.",
        "What is in ebx after each of them? One of them writes to registers that do not stand in its line.",
        "cpuid writes eax, ebx, ecx and edx: nothing that does so may stand between the mov to ebx and the jump.",
    ),
    'cpuid has no operand in its text and writes four registers; the vendor\'s name is in three of them ("Genu", "Auth" '
    "in ebx). It is a well-known trap: 32-bit position-independent code keeps a pointer in ebx, and must save it around "
    "each cpuid. Load what is handed over last, right in front of the jump.",
    "Know what an instruction writes besides its operands: cpuid clobbers eax, ebx, ecx and edx.",
)

BIG_ENDIAN: Final = Lesson(
    "The firmware stops itself: it says that the host's memory map is of an impossible size.",
    "The firmware looks for the file etc/e820 in the host's directory, finds it, and refuses it before it has read a byte: "
    "E820_COUNT. QEMU would tell the same map to any other firmware.",
    (
        "Where in e820.s does the jump to that panic stand, and which register does it look at?",
        "What does that register hold? Write it down in hexadecimal and turn its bytes round.",
        "The size in the directory is big-endian: bswap ecx right behind its load.",
    ),
    "fw_cfg's directory, its DMA descriptors and its DMA register are big-endian, what lies in etc/e820 is not (QEMU, "
    "docs/specs/fw_cfg). So the same number is needed both ways: swapped for a comparison, as it is for the length in a DMA "
    "descriptor. Here the bound has caught it; without one, a copy of 335 million bytes would have followed.",
    "Know the byte order of each field, and bound each number that comes from outside before it is used.",
)

OVER_THE_KERNEL: Final = Lesson(
    "The kernel is entered at the right address, and its first instruction is none of its own.",
    "Registers and tables are all as they should be, the module list among them. The check says that the kernel's memory is "
    "not as in its file. QEMU has put the kernel there before the first instruction: so somebody has changed it since.",
    (
        "Who writes to where the kernel lies? A store need not be one of the CPU's: fw_cfg writes for the firmware.",
        "In which address does the routine that reads fw_cfg get where the bytes go? Who calls it for the initrd, and with "
        "what?",
        "The initrd belongs where the host says (INITRD_ADDR), which is in eax there: mov edi, eax.",
    ),
    "A device that writes to memory does what it is told, and no page table and no segment is in its way. The mistake is "
    "seen far from where it was made. Of the same kind, and real: Debian's qboot copies 8 KiB of the kernel's ELF header to "
    "address 0 and up, as QEMU never tells it where they should go for such a kernel. Nothing lies there, so nobody has "
    "noticed.",
    "A DMA's address deserves the check that a store's gets: know whose memory it is, before.",
)

OVERLAP: Final = Lesson(
    "An operating system would use memory that it also must not touch.",
    "The host has the firmware put its ACPI tables into RAM. The kernel's memory map says where they are. A kernel that "
    "believes another line of the same map puts something else there.",
    (
        "Which two ranges of the map have addresses in common? (`pvhboot boot` with --verbose prints the map.)",
        "The tables are right. What has to happen to the range of RAM that they were taken out of, and which file does it?",
        "acpi.s, at acpi_map: the size of that RAM is to become what is left in front of the tables (eax - LOW_HOLE_END); "
        "an xchg stores it and gives the old one.",
    ),
    "Each byte of memory belongs to one range. Linux is used to worse and mends it (e820__update_table: where ranges "
    "overlap, the higher type wins, and ACPI is higher than RAM); another kernel need not, and one that adds up its RAM "
    "counts some of it twice. What is put into a map has to be taken out of what was there.",
    "An entry that is added to a memory map has to be cut out of the range that it lies in.",
)

ABOVE_4_GIB: Final = Lesson(
    "With 3 GiB of RAM all is well; with 2 MiB more the initrd is not where the host has wanted it.",
    "The firmware puts the initrd as high as it can, out of the kernel's way. With more than 3 GiB the last range of RAM "
    "lies above 4 GiB. A small kernel finds its initrd all the same; with a larger one, or another size of RAM, it would "
    "lie in it.",
    (
        "Where does the module list say that the initrd is, and where has the host wanted it?",
        "How is the address made? Of how many bits is the end of the last range of RAM, and of how many is eax?",
        "The sum loses its upper half. Take the address that the host has chosen (INITRD_ADDR, in eax): it lies below 4 GiB.",
    ),
    "Addresses in the memory map have 64 bits, registers of 32-bit code 32, and add drops the carry without a word. On "
    "machines with less than 3 GiB, where it was written and tested, the code is right. The protocol has its own limit: "
    "INITRD_ADDR of fw_cfg has 32 bits, and a kernel without paging reaches no more. Who wants more than 4 GiB has to "
    "notice that, not to wrap.",
    "Where 64-bit numbers go through 32-bit registers, look at the upper half; and test with more than 4 GiB.",
)
