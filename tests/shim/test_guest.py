"""The conformance guest: its code, how it is linked, and the file that comes of it, as pyelftools and GNU as see them."""

import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from pvhboot.shim import guest, guest_layout
from pvhboot.shim.abi import devices, freebsd, paging, pvh
from pvhboot.shim.abi.pvh import Relocation
from pvhboot.shim.errors import BootError
from pvhboot.shim.guest_image import image_from_json
from pvhboot.shim.guest_link import Code, EntryNote, Load, Notes, Recipe, link, load_bytes
from pvhboot.shim.image import asm_source
from pvhboot.shim.stock import build_guest, default_guest, guest_image

BITS = (32, 64)
ORIGINS = [0x100000, 0x3FFFC000, 0x12345678, 0xFFF00000]


def elf(bits, recipe=None):
    data = default_guest(bits) if recipe is None else link(guest_image(), "test", recipe)
    return ELFFile(io.BytesIO(data))


def only_segment(bits, kind):
    (segment,) = (segment for segment in elf(bits).iter_segments() if segment["p_type"] == kind)
    return segment


def code_at(origin):
    """The code as the assembler makes it for that address."""
    return b"".join(data for _, data in guest.assemble_guest(origin).pieces)


# The code, linked.


def test_building_it_twice_gives_the_same():
    assert guest.build_image() == guest.build_image() == guest_image()


def test_it_is_kept_whole():
    image = guest_image()
    assert image_from_json(image.code, image.to_json()) == image


@pytest.mark.parametrize("origin", ORIGINS)
def test_linked_it_is_as_assembled_there(origin):
    data = ELFFile(io.BytesIO(link(guest_image(), "test", Recipe(loads=(Code(origin),))))).get_segment(0).data()
    assert data[: len(guest_image().code)] == code_at(origin)


def test_each_relocation_is_an_address_in_the_image():
    image = guest_image()
    ends = [image.labels["shape"] + guest_layout.GUEST_SHAPE.size, guest_layout.GUEST_STATE_OFFSET]
    for at in image.relocations:
        target = int.from_bytes(image.code[at : at + 4], "little")
        state = ends[1] <= target < ends[1] + guest_layout.GUEST_STATE.size
        assert state or target < ends[0], hex(at)
    assert list(image.relocations) == sorted(set(image.relocations))
    assert image.labels["shape"] == len(image.code)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (Recipe(loads=(Load(0x100000, 1, 1),)), "guest test: 0 segments of code: one would be right"),
        (Recipe(loads=(Code(), Code(0x200000))), "guest test: 2 segments of code"),
        (
            Recipe(loads=(Code(), *(Load(0x200000 + at, 1, 1) for at in range(200)))),
            r"code and shape take \d+ bytes: there are",
        ),
        (Recipe(loads=(Load(1 << 32, 1, 1), Code())), "its segment at 0x100000000 cannot be looked at"),
        (Recipe(loads=(Code(), Load((1 << 32) + 0x1FFFFF, 2, 2))), "its segment at 0x1001fffff cannot"),
        (Recipe(loads=(Code(0x1FF000), Load(1 << 32, 1, 1))), "its segment at 0x100000000 cannot"),
        (Recipe(loads=(Code(0x100800), Load(1 << 32, 1, 1))), "its segment at 0x100000000 cannot"),
        (Recipe(loads=(Code(), Load(1 << 32, 1, 1)), relocation=Relocation(1, 0, 0)), "its segment at 0x100000000 cannot"),
    ],
)
def test_what_cannot_be_linked_is_said(recipe, says):
    with pytest.raises(BootError, match=says):
        link(guest_image(), "test", recipe)


def test_data_has_no_zero_and_differs_from_page_to_page():
    data = load_bytes(Load(0x200000, 0x4000, 0x4000, b"tail"))
    assert len(data) == 0x4000
    assert data.endswith(b"tail")
    assert 0 not in data
    pages = [data[at : at + 0x1000] for at in range(0, 0x4000, 0x1000)]
    assert len(set(pages)) == 4
    assert load_bytes(Load(0x201000, 0x1000, 0x1000)) != pages[0]


def test_the_hash_is_fnv_1a():
    # RFC 9923, appendix C: test vectors.
    assert [guest_layout.fnv_1a(data) for data in (b"", b"a", b"foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


@pytest.mark.parametrize("bits", BITS)
def test_the_dwords_up_to_the_state_add_up_to_nothing(bits):
    data = only_segment(bits, "PT_LOAD").data()
    words = memoryview(data[: guest_layout.GUEST_STATE_OFFSET]).cast("I")
    assert sum(words) & 0xFFFFFFFF == 0
    assert not any(data[guest_layout.GUEST_STATE_OFFSET :])


# The default guests.


@pytest.mark.parametrize(("bits", "machine"), [(32, "EM_386"), (64, "EM_X86_64")])
def test_elf_class_and_machine(bits, machine):
    file = elf(bits)
    assert (file.elfclass, file["e_machine"], file["e_type"]) == (bits, machine, "ET_EXEC")


@pytest.mark.parametrize("bits", BITS)
def test_one_writable_load_at_1m_with_bss(bits):
    load = only_segment(bits, "PT_LOAD")
    assert load["p_paddr"] == load["p_vaddr"] == 0x100000
    assert load["p_flags"] == 7
    assert (load["p_filesz"], load["p_memsz"]) == (guest_layout.GUEST_FILE_BYTES, guest_layout.GUEST_MEMORY_BYTES)


@pytest.mark.parametrize(("bits", "size"), [(32, 4), (64, 8)])
def test_note_names_the_entry(bits, size):
    data = only_segment(bits, "PT_NOTE").data()
    entry = int.from_bytes(data[16:], "little")
    assert data[:16] == bytes([4, 0, 0, 0, size, 0, 0, 0, 18, 0, 0, 0]) + b"Xen\0"
    assert len(data) == 16 + size
    assert entry == 0x100000 == elf(bits)["e_entry"]


@pytest.mark.parametrize("bits", BITS)
def test_note_is_found_by_pyelftools(bits):
    (found,) = only_segment(bits, "PT_NOTE").iter_notes()
    assert (found["n_name"], found["n_type"]) == ("Xen", pvh.XEN_ELFNOTE_PHYS32_ENTRY)


@pytest.mark.parametrize("bits", BITS)
def test_symbols_are_those_of_the_source(bits):
    symbols = {symbol.name: symbol["st_value"] for symbol in elf(bits).get_section_by_name(".symtab").iter_symbols()}
    assert symbols["guest_entry"] == 0x100000
    assert {"guest_leave", "check_table", "put_template"} <= set(symbols)


def test_symbols_are_virtual_addresses():
    file = elf(64, Recipe(vaddr=0xFFFFFFFF80000000))
    (symbol,) = file.get_section_by_name(".symtab").get_symbol_by_name("guest_entry")
    assert symbol["st_value"] == file["e_entry"] == file.get_segment(0)["p_vaddr"] == 0xFFFFFFFF80100000


def test_a_guest_that_is_not_there():
    with pytest.raises(BootError, match="no conformance guest named 'elf16'"):
        build_guest("elf16")


def test_notes_lie_where_they_are_wanted():
    notes = (Notes((EntryNote(4),), 8, skew=3), Notes((EntryNote(4),), 0))
    first, second = (segment for segment in elf(64, Recipe(notes=notes)).iter_segments() if segment["p_type"] == "PT_NOTE")
    assert (first["p_offset"] % 16, first["p_align"], second["p_offset"] % 16, second["p_align"]) == (3, 8, 0, 0)


# The source.


def test_every_check_is_in_the_table_and_their_number_cannot_be_mistaken():
    listed = re.findall(r"^\s+CHECK (\w+)$", asm_source("guest_data.s"), re.MULTILINE)
    defined = set(re.findall(r"^check_(\w+):", asm_source("guest_checks.s"), re.MULTILINE)) - {"good", "bad"}
    values = {guest_layout.GUEST_ELF_ENTRY, guest_layout.GUEST_FREEBSD_HALT, guest_layout.GUEST_NO_STACK}
    assert len(listed) == len(set(listed)) < min(values)
    assert len(values) == 3
    assert max(values) < 128  # twice the value and one more is QEMU's exit status
    assert set(listed) == defined


def test_fields_have_offsets_that_a_template_can_name():
    assert max(guest_layout.GUEST_STATE.size, guest_layout.GUEST_REGION.size) <= 0x100


def test_no_instruction_that_a_software_kvm_refuses():
    refused = re.compile(
        r"^(int3?|into|iretd?|popcnt|rdrand|rdseed|movbe|bswap|verr|verw|arpl|bound|lsl|lar|xgetbv|x?save\w*|\w*mm\d.*)$"
    )
    listing = guest.assemble_guest().listing
    assert [line for line in listing if refused.match(line.text.split(" ")[0])] == []


def test_uart_and_debug_exit_constants():
    # PC16550D, table II; QEMU's default for isa-debug-exit.
    assert (devices.COM1_PORT, devices.UART_LCR, devices.UART_LSR) == (0x3F8, 3, 5)
    assert (devices.UART_LSR_THRE, devices.UART_LSR_TEMT, devices.UART_LCR_DLAB) == (0x20, 0x40, 0x80)
    assert devices.UART_DIVISOR_115200 == 1
    assert (devices.DEBUG_EXIT_PORT, devices.DEBUG_EXIT_SIZE) == (0x501, 2)
    assert [devices.debug_exit_status(value) for value in (0, 2, 127)] == [1, 5, 255]


def test_freebsd_constants():
    # sys/amd64/include/vmparam.h, sys/sys/linker.h, sys/amd64/include/metadata.h.
    assert (freebsd.KERNBASE, freebsd.KERNLOAD, freebsd.KERNEL_END_ALIGN) == (0xFFFFFFFF80000000, 0x200000, 0x200000)
    assert (freebsd.MODINFO_END, freebsd.MODINFO_NAME, freebsd.MODINFO_TYPE) == (0, 1, 2)
    assert (freebsd.MODINFO.size, freebsd.XEN_HEADER.size, freebsd.XEN_HEADER.fields["modulep_offset"].offset) == (8, 16, 8)
    source = asm_source("guest_freebsd.s")
    assert all(f'.asciz "{word}"' in source for word in (*freebsd.KERNEL_TYPES, freebsd.MODULE_HEADER))


def test_paging_constants():
    # SDM volume 3A, 4.5: 512 entries of 8 bytes in a page, 2 MiB and 1 GiB.
    assert (paging.TABLE_ENTRIES * 8, paging.LARGE_PAGE, 1 << paging.PDPT_SHIFT) == (0x1000, 0x200000, 0x40000000)
    assert (paging.CR4_PAE, paging.EFER_LME) == (0x20, 0x100)
    assert (paging.PTE_PRESENT, paging.PTE_WRITABLE, paging.PTE_LARGE) == (1, 2, 0x80)


@pytest.mark.skipif(not (shutil.which("as") and shutil.which("ld")), reason="no GNU as and ld (binutils) here")
def test_gnu_as_makes_the_same_bytes(tmp_path: Path):
    constants = "".join(f".equ {name}, {value:#x}\n" for name, value in guest.guest_symbols().items())
    sources = "".join(unit.text for unit in guest.guest_units())
    (tmp_path / "guest.s").write_text(f".intel_syntax noprefix\n.globl guest_entry\n{constants}{sources}")
    for command in (
        ["as", "--32", "-o", "guest.o", "guest.s"],
        ["ld", "-m", "elf_i386", "-Ttext=0x100000", "-e", "guest_entry", "--oformat", "binary", "-o", "guest.bin", "guest.o"],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
    assert code_at(0x100000) == (tmp_path / "guest.bin").read_bytes()
