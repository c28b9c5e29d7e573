"""The image: its layout, its reproducibility, what is said of it, and GNU as as an oracle for the whole firmware."""

import hashlib
import io
import itertools
import json
import re
import shutil
import subprocess
from importlib import resources

import pytest
from elftools.elf.elffile import ELFFile
from pvhboot.shim.abi.firmware import PANICS, panic_message
from pvhboot.shim.blob import blob_from_json
from pvhboot.shim.defs import firmware_symbols
from pvhboot.shim.errors import AssemblyError, BootError
from pvhboot.shim.image import asm_source, build, firmware_units
from pvhboot.shim.machines import BARE
from pvhboot.shim.stage import make_stage, read_stage

CODE_ORIGIN = 0xFFFF8000
RESET_VECTOR = 0xFFFFFFF0
STAGE = make_stage(
    "before-handoff",
    "my.s",
    """# A stage that does a little of everything.
# Clobbers: eax, ecx, edi, flags, memory 0x9000-0x9100
.equ COUNT, 0x100 / 4
    mov edi, 0x9000
    mov ecx, COUNT
    xor eax, eax
    cld
    rep stosd
1:  lea eax, [edi + ecx*4 - 0x100]
    cmp eax, dword ptr [my_limit]
    ja 2f
    mov dword ptr es:[edi - 4], offset my_limit
    loop 1b
2:  POST 0x55
    ret
.balign 4, 0xcc
my_limit: .long 0x9000
""",
)
ASM_FILES = sorted(file.name for file in resources.files("pvhboot.shim").joinpath("asm").iterdir() if file.name.endswith(".s"))


@pytest.fixture(scope="module")
def blob():
    return build(BARE)


# GNU as as an oracle.


def gnu_as(tmp_path, stages, verbose):
    """The firmware from CODE_ORIGIN on as GNU as and ld make it."""
    symbols = firmware_symbols(BARE, verbose)
    # The address of a section is not known to `as`. Where a 16-bit offset is the difference of a label and this number, the
    # number must therefore be a label too: the place in this section that ld will put there.
    base = symbols.pop("RESET_CS_BASE")
    lines = [".intel_syntax noprefix", f"code_origin: .equ RESET_CS_BASE, code_origin - {CODE_ORIGIN - base:#x}"]
    lines += [f".equ {name}, {value:#x}" for name, value in symbols.items()]
    for unit in firmware_units(stages, {}):
        if unit.origin is not None:
            lines.append(f".org {unit.origin - CODE_ORIGIN:#x}")
        lines.append(unit.text)
    (tmp_path / "a.s").write_text("\n".join(lines) + "\n")
    run = {"cwd": tmp_path, "check": True, "capture_output": True}
    subprocess.run(["as", "--32", "-o", "a.o", "a.s"], **run)
    link = ["ld", "-m", "elf_i386", f"-Ttext={CODE_ORIGIN:#x}", "-e", "reset_vector", "--oformat", "binary"]
    subprocess.run([*link, "-o", "a.bin", "a.o"], **run)
    return (tmp_path / "a.bin").read_bytes()


@pytest.mark.skipif(shutil.which("as") is None or shutil.which("ld") is None, reason="no GNU as and ld")
@pytest.mark.parametrize("verbose", [False, True], ids=["quiet", "verbose"])
@pytest.mark.parametrize("stages", [(), (STAGE,)], ids=["plain", "stage"])
def test_the_whole_firmware_is_what_gnu_as_makes_of_it(tmp_path, stages, verbose):
    ours = build(BARE, stages, verbose=verbose)
    theirs = gnu_as(tmp_path, stages, verbose)
    code = ours.data[CODE_ORIGIN - ours.paddr :]
    assert len(theirs) <= len(code)
    assert code[: len(theirs)] == theirs
    assert not any(code[len(theirs) :])


# Layout.


@pytest.mark.parametrize("size", [0x10000, 0x20000, 0x1000000])
def test_rom(blob, size):
    rom = build(BARE, size=size)
    assert len(rom.data) == size
    assert rom.paddr == 0x100000000 - size
    assert rom.data[-16:-13] == bytes.fromhex("e90d80")  # jmp real_mode, 0x7ff3 bytes back
    assert rom.data[-0x10000 : -0x10000 + 32] == b"PVHB\x01\x00\x00\x00" + bytes(24)
    assert rom.data[-0x10000:] == blob.data
    assert not any(rom.data[:-0x10000])
    assert rom.symbols == blob.symbols


@pytest.mark.parametrize("size", [0, 1, -0x10000, 0x8000, 0xFFFF, 0x10001, 0x18000, 0x1010000, 0x2000000])
def test_impossible_size(size):
    with pytest.raises(BootError, match=rf"^a ROM of {size} bytes is not possible: it takes a multiple of 64 KiB"):
        build(BARE, size=size)


def test_nothing_lies_between_the_parameter_header_and_the_code(blob):
    assert not any(blob.data[32:0x8000])


def test_symbols(blob):
    assert blob.symbols["real_mode"] == CODE_ORIGIN
    assert blob.symbols["reset_vector"] == RESET_VECTOR
    assert blob.symbols["rom_gdt"] % 8 == 0
    gdt = blob.symbols["rom_gdt"] - blob.paddr
    quads = [int.from_bytes(blob.data[at : at + 8], "little") for at in range(gdt, gdt + 32, 8)]
    assert quads == [0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x0000890000000067]


@pytest.mark.parametrize("panic", PANICS, ids=lambda panic: panic.name)
def test_panic_records(blob, panic):
    at = blob.symbols[f"panic_{panic.name}"] - blob.paddr
    text = panic_message(panic).encode() + b"\n"
    assert blob.data[at : at + 2 + len(text)] == bytes([panic.code, len(text)]) + text


def test_every_panic_that_the_sources_use_exists_and_every_one_there_is_is_used():
    sources = "\n".join(asm_source(name) for name in ASM_FILES if name != "macros.s")
    assert set(re.findall(r"^\s*PANIC (\w+)", sources, re.MULTILINE)) == {panic.name for panic in PANICS}


# Reproducible, and known by its manifest.


def test_same_input_same_bytes(blob):
    again = build(BARE)
    assert again == blob
    assert again.sha256 == blob.sha256
    assert again.to_json() == blob.to_json()
    assert again.elf() == blob.elf()
    assert build(BARE, [STAGE]) == build(BARE, [STAGE])


@pytest.mark.parametrize("stages", [(), (STAGE,)], ids=["plain", "stage"])
def test_json_round_trip(stages):
    one = build(BARE, stages, verbose=bool(stages))
    two = blob_from_json(one.data, one.to_json())
    assert two == one
    assert two.to_json() == one.to_json()
    assert two.listing_text() == one.listing_text()


def test_manifest(blob):
    manifest = json.loads(blob.to_json())
    assert manifest["machine"] == "bare"
    assert manifest["verbose"] is False
    assert manifest["stages"] == []
    assert manifest["rom"] == {"paddr": "0xffff0000", "size": 0x10000, "sha256": blob.sha256}
    assert manifest["params"] == {"paddr": "0xffff0000", "max_size": 0x8000, "version": 1}
    assert manifest["code_bytes"] == sum(len(line.data) for line in blob.listing)
    assert manifest["symbols"]["reset_vector"] == "0xfffffff0"
    assert list(manifest["symbols"].values()) == sorted(manifest["symbols"].values())


def test_manifest_of_a_stage_and_no_path_of_this_machine(tmp_path):
    path = tmp_path / "my.s"
    path.write_text(STAGE.text)
    one = build(BARE, [read_stage(STAGE.slot, str(path))])
    (stage,) = one.manifest["stages"]
    assert stage["sha256"] == hashlib.sha256(STAGE.text.encode()).hexdigest()
    for text in (one.to_json(), one.listing_text()):
        assert str(tmp_path) not in text
        assert str(resources.files("pvhboot.shim")) not in text
        assert not re.search(r'"/', text)


def test_verbose_build_writes_post_codes(blob):
    verbose = build(BARE, verbose=True)
    assert verbose.data != blob.data

    def posts(one):
        pairs = itertools.pairwise(one.listing)
        return [load.data[1] for load, out in pairs if out.text == "out POST_PORT, al" and load.text.startswith("mov al, ")]

    assert posts(blob) == []
    assert posts(verbose) == [0x10, 0x20, 0x30, 0x40, 0x60]
    assert posts(build(BARE, [STAGE], verbose=True)) == [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x55]
    assert verbose.data.count(b"\xe6\x80") == blob.data.count(b"\xe6\x80") + 5


# What does not fit, and what does not exist.


def stage_of(size):
    return make_stage("before-handoff", "huge.s", f"# Clobbers: nothing\nret\n.skip {size - 1}")


def test_a_stage_up_to_the_last_byte_fits_and_one_more_does_not():
    small = build(BARE, [stage_of(1)])
    used = max(line.address + len(line.data) for line in small.listing if line.address < RESET_VECTOR) - CODE_ORIGIN
    room = 0x8000 - 16 - used
    full = build(BARE, [stage_of(1 + room)])
    assert full.data[-16:] == small.data[-16:]
    with pytest.raises(AssemblyError, match=r"^huge\.s: 32753 bytes of code do not fit: there are 32752$"):
        build(BARE, [stage_of(2 + room)])


@pytest.mark.parametrize(
    "body", [".skip 0x8000", ".skip 0x10000", ".skip 0xfffff", "nop\n" * 33000], ids=["32K", "64K", "1M", "nops"]
)
def test_a_stage_that_does_not_fit_is_named(body):
    with pytest.raises(AssemblyError, match=r"^huge\.s(:\d+)?: .* (do not fit: there are|bytes of fill: there is room for)"):
        build(BARE, [make_stage("before-handoff", "huge.s", f"# Clobbers: nothing\nret\n{body}")])


def test_a_reset_vector_that_does_not_fit():
    with pytest.raises(AssemblyError, match=r"^reset\.s: 17 bytes do not fit: there are 16$"):
        build(BARE, sources={"reset.s": ".code16\nreset_vector: .skip 17"})
    with pytest.raises(AssemblyError, match=r"^reset\.s: nothing stands at the reset vector$"):
        build(BARE, sources={"reset.s": ""})


def test_one_stage_a_slot():
    with pytest.raises(BootError, match="each stage slot takes one stage"):
        build(BARE, [STAGE, STAGE])


def test_sources_replace_a_file_and_an_unknown_name_is_refused(blob):
    other = build(BARE, sources={"flat32.s": asm_source("flat32.s") + "\n    nop\n"})
    assert len(other.listing) == len(blob.listing) + 1
    assert build(BARE, sources={"flat32.s": asm_source("flat32.s")}) == blob
    with pytest.raises(BootError, match=r"^the firmware has no source file bogus\.s$"):
        build(BARE, sources={"bogus.s": ""})


def test_an_error_in_a_replaced_file_names_it():
    with pytest.raises(AssemblyError, match=r"^tables\.s:2: bogus_symbol is not defined"):
        build(BARE, sources={"tables.s": "rom_gdt: ram_gdtr: rom_gdtr:\n.long bogus_symbol"})


# Listing and symbols.


@pytest.mark.parametrize("stages", [(), (STAGE,)], ids=["plain", "stage"])
def test_the_listing_covers_every_byte_that_is_not_0(stages):
    one = build(BARE, stages, verbose=True)
    covered = bytearray(len(one.data))
    for line in one.listing:
        at = line.address - one.paddr
        assert one.data[at : at + len(line.data)] == line.data
        assert not any(covered[at : at + len(line.data)]), "two lines say what a byte is"
        covered[at : at + len(line.data)] = b"\x01" * len(line.data)
    assert {at for at, byte in enumerate(one.data) if byte and not covered[at]} == {0, 1, 2, 3, 4}  # PVHB, version 1


def test_listing_text(blob):
    lines = blob.listing_text().split("\n")
    assert lines[0] == "; realmode.s"
    assert lines[1] == "ffff8000  real_mode:"
    assert next(line for line in lines if line.endswith("  cld")).split()[1] == "fc"
    files = [line[2:] for line in lines if line.startswith("; ")]
    assert files == [
        "realmode.s",
        "flat32.s",
        "params.s",
        "memmap.s",
        "start_info.s",
        "handoff.s",
        "panic.s",
        "tables.s",
        "panics.s",
        "reset.s",
    ]
    labels = {line.split()[1].removesuffix(":") for line in lines if re.fullmatch(r"[0-9a-f]{8}  \w+:", line)}
    assert labels == set(blob.symbols)


def test_locate(blob):
    place = blob.locate(RESET_VECTOR)
    assert (place.symbol, place.offset, place.source) == ("reset_vector", 0, "reset.s:9")
    handoff = blob.locate(blob.symbols["handoff"] + 2)
    assert str(handoff) == "handoff+0x2 (handoff.s:30)"
    assert blob.locate(blob.symbols["panic_NO_PARAMS"] + 5).symbol == "panic_NO_PARAMS"
    assert blob.locate(0x1000) is None
    assert blob.locate(0xFFFF0000) is None
    assert blob.locate(RESET_VECTOR - 1) is None


def test_locate_finds_a_place_for_each_line_of_the_listing(blob):
    for line in blob.listing:
        place = blob.locate(line.address)
        assert place.source == f"{line.file}:{line.line}"
        assert blob.symbols[place.symbol] + place.offset == line.address


def test_elf(blob):
    file = ELFFile(io.BytesIO(blob.elf()))
    assert (file.elfclass, file["e_entry"]) == (32, RESET_VECTOR)
    (segment,) = file.iter_segments()
    assert segment["p_paddr"] == CODE_ORIGIN
    assert segment.data() == blob.data[-0x8000:]
    symbols = {symbol.name: symbol["st_value"] for symbol in file.get_section_by_name(".symtab").iter_symbols() if symbol.name}
    assert symbols == blob.symbols


@pytest.fixture
def elf_path(blob, tmp_path):
    path = tmp_path / "bare.elf"
    path.write_bytes(blob.elf())
    return str(path)


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no GNU readelf")
def test_elf_as_readelf_sees_it(blob, elf_path):
    out = subprocess.run(["readelf", "-sW", elf_path], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in out.splitlines() if " FUNC " in line]
    assert {row[7]: int(row[1], 16) for row in rows} == blob.symbols


@pytest.mark.skipif(shutil.which("gdb") is None, reason="no gdb")
def test_elf_as_gdb_sees_it(blob, elf_path):
    command = ["gdb", "-nx", "-batch", "-ex", "info address handoff", "-ex", "x/i handoff", elf_path]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f'Symbol "handoff" is at {blob.symbols["handoff"]:#x}' in out
    assert "jmp" in out


# The sources themselves.


# Macros, data, and routines that have a contract each.
WITHOUT_CONTRACT = ("macros.s", "tables.s", "guest_data.s", "guest_serial.s")


@pytest.mark.parametrize("name", [name for name in ASM_FILES if name not in WITHOUT_CONTRACT])
def test_each_phase_opens_with_its_contract(name):
    header = []
    for line in asm_source(name).split("\n"):
        if not line.startswith("#"):
            break
        header.append(line)
    text = "\n".join(header)
    assert len(header[0]) > 10, "the first line says what it is"
    places = [text.find(f"\n# {word}:") for word in ("In", "Out", "Clobbers")]
    assert -1 not in places, f"{name} does not open with In, Out, Clobbers"
    assert places == sorted(places)


def test_the_firmware_is_made_of_all_source_files():
    firmware = {name for name in ASM_FILES if not name.startswith("guest")}
    assert {unit.name for unit in firmware_units([STAGE], {})} == {*firmware, "panics.s", "my.s"}
