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
from pvhboot.shim.abi.firmware import PANICS, POSTS, panic_message, post_message
from pvhboot.shim.blob import blob_from_json
from pvhboot.shim.defs import Options, firmware_symbols
from pvhboot.shim.errors import AssemblyError, BootError
from pvhboot.shim.image import asm_source, build, firmware_units, panics_of
from pvhboot.shim.machines import BARE, FIRMWARES, MICROVM, MICROVM_ACPI, PC, Q35, UNIVERSAL
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
2:  POST STAGE
    ret
.balign 4, 0xcc
my_limit: .long 0x9000
""",
)
ASM_FILES = sorted(file.name for file in resources.files("pvhboot.shim").joinpath("asm").iterdir() if file.name.endswith(".s"))


@pytest.fixture(scope="module", params=FIRMWARES.values(), ids=FIRMWARES)
def spec(request):
    """Each firmware in turn; module-scoped, so that its blob is built once."""
    return request.param


@pytest.fixture(scope="module")
def blob(spec):
    return build(spec)


# GNU as as an oracle.

BUILDS = {"quiet": (False, False), "verbose": (True, False), "marks": (False, True), "verbose-marks": (True, True)}


def gnu_as(tmp_path, spec, stages, options):
    """The firmware from CODE_ORIGIN on as GNU as and ld make it."""
    symbols = firmware_symbols(spec, options)
    # The address of a section is not known to `as`. Where a 16-bit offset is the difference of a label and this number, the
    # number must therefore be a label too: the place in this section that ld will put there.
    base = symbols.pop("RESET_CS_BASE")
    lines = [".intel_syntax noprefix", f"code_origin: .equ RESET_CS_BASE, code_origin - {CODE_ORIGIN - base:#x}"]
    lines += [f".equ {name}, {value:#x}" for name, value in symbols.items()]
    for unit in firmware_units(spec, stages, {}, options):
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
@pytest.mark.parametrize(("verbose", "marks"), BUILDS.values(), ids=BUILDS)
@pytest.mark.parametrize(("stages", "size"), [((), 0x10000), ((STAGE,), 0x20000)], ids=["plain", "stage"])
def test_the_whole_firmware_is_what_gnu_as_makes_of_it(tmp_path, spec, stages, size, verbose, marks):
    ours = build(spec, stages, verbose=verbose, marks=marks, size=size)
    theirs = gnu_as(tmp_path, spec, stages, Options(size, verbose, marks))
    code = ours.data[CODE_ORIGIN - ours.paddr :]
    assert len(theirs) <= len(code)
    assert code[: len(theirs)] == theirs
    assert not any(code[len(theirs) :])


# Layout.


def code_room(spec):
    """Bytes for the code: it ends before the reset vector, or before the MP table that is in the ROM."""
    return 0x7F00 if spec in (MICROVM, UNIVERSAL) else 0x7FF0


@pytest.mark.parametrize("size", [0x10000, 0x20000, 0x1000000])
def test_rom(spec, blob, size):
    rom = build(spec, size=size)
    assert len(rom.data) == size
    assert rom.paddr == 0x100000000 - size
    assert rom.data[-16:] == bytes.fromhex("e90d80 0000000000") + b"pvhboot\x00"  # jmp real_mode, 0x7ff3 bytes back; the mark
    # Of the last 64 KiB: an empty parameter block, or none.
    head = b"PVHB\x01\x00\x00\x00" if spec is BARE else bytes(8)
    assert rom.data[-0x10000 : -0x10000 + 32] == head + bytes(24)
    assert not any(rom.data[:-0x10000])
    assert rom.symbols == blob.symbols
    if spec is BARE:
        assert rom.data[-0x10000:] == blob.data


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
    assert quads == [0, 0x0000890000000067, 0x00CF9B000000FFFF, 0x00CF93000000FFFF]


@pytest.mark.parametrize("panic", PANICS, ids=lambda panic: panic.name)
def test_panic_records(spec, blob, panic):
    if panic not in panics_of(spec):
        assert f"panic_{panic.name}" not in blob.symbols
        return
    at = blob.symbols[f"panic_{panic.name}"] - blob.paddr
    text = panic_message(panic).encode() + b"\n"
    assert blob.data[at : at + 2 + len(text)] == bytes([panic.code, len(text)]) + text


@pytest.mark.parametrize("post", POSTS, ids=lambda post: post.name)
def test_post_records(blob, verbose_blob, post):
    assert f"post_{post.name}" not in blob.symbols
    at = verbose_blob.symbols[f"post_{post.name}"] - verbose_blob.paddr
    text = post_message(post).encode() + b"\n"
    assert verbose_blob.data[at : at + 2 + len(text)] == bytes([post.code, len(text)]) + text


def test_every_panic_that_the_sources_use_exists_and_every_one_there_is_is_used(spec):
    sources = "\n".join(unit.text for unit in firmware_units(spec, [STAGE], {}, Options()) if unit.name != "macros.s")
    used = re.findall(r"^\s*PANIC (\w+)", sources, re.MULTILINE)
    assert sorted(used) == sorted(panic.name for panic in panics_of(spec))


def test_every_way_to_a_panic_is_taken_by_a_phase(spec):
    names = {unit.name: unit.text for unit in firmware_units(spec, (), {}, Options())}
    panics = "".join(names.pop(name) for name in list(names) if name.endswith("_panics.s"))
    for label in re.findall(r"^(\w+):$", panics, re.MULTILINE):
        assert any(re.search(rf"^\s+j\w+ {label}\b", text, re.MULTILINE) for text in names.values()), label


# Reproducible, and known by its manifest.


def test_same_input_same_bytes(spec, blob):
    again = build(spec)
    assert again == blob
    assert again.sha256 == blob.sha256
    assert again.to_json() == blob.to_json()
    assert again.elf() == blob.elf()
    assert build(spec, [STAGE]) == build(spec, [STAGE])


@pytest.mark.parametrize("stages", [(), (STAGE,)], ids=["plain", "stage"])
def test_json_round_trip(spec, stages):
    one = build(spec, stages, verbose=bool(stages), marks=bool(stages))
    two = blob_from_json(one.data, one.to_json())
    assert two == one
    assert two.to_json() == one.to_json()
    assert two.listing_text() == one.listing_text()


BLOCK = {"paddr": "0xffff0000", "max_size": 0x8000, "version": 1}
SPEC = {
    "qemu": "microvm,acpi=on",
    "source": "fw_cfg",
    "chipset": None,
    "low_ram_max": "0xc0000000",
    "low_ram_whole": "0xc0000000",
    "low_rom_max": "0x20000",
    "rom_writable": True,
    "acpi": True,
    "ram_min": "0x100000",
    "ram_max": "0x10000000000",
    "unclaimed": "ones",
}
PC_SPEC = {**SPEC, "qemu": "pc", "chipset": "i440fx", "low_ram_whole": "0xe0000000", "rom_writable": False}
Q35_SPEC = {**PC_SPEC, "qemu": "q35", "chipset": "q35", "low_ram_max": "0x80000000", "low_ram_whole": "0xb0000000"}
SPECS = {
    "bare": {
        **SPEC,
        "qemu": "microvm,acpi=off",
        "source": "params",
        "low_rom_max": "0x0",
        "ram_min": "0x28000",
        "rom_writable": False,
        "acpi": False,
    },
    "microvm": {**SPEC, "qemu": "microvm,acpi=off", "acpi": False},
    "microvm-acpi": SPEC,
    "pc": PC_SPEC,
    "q35": Q35_SPEC,
    "universal": {
        **{name: SPEC[name] for name in ("source", "acpi", "ram_min", "ram_max")},
        "detects": ["pc", "q35", "microvm-acpi"],
    },
}


def test_manifest(spec, blob):
    manifest = json.loads(blob.to_json())
    assert manifest["machine"] == spec.name
    assert (manifest["verbose"], manifest["marks"]) == (False, False)
    assert manifest["stages"] == []
    assert manifest["rom"] == {"paddr": "0xffff0000", "size": 0x10000, "sha256": blob.sha256}
    assert manifest.get("params") == (BLOCK if spec is BARE else None)
    assert manifest["spec"] == SPECS[spec.name]
    assert [(span["name"], span["start"], span["end"]) for span in manifest["low_memory"]] == [
        (span.name, hex(span.start), hex(span.end)) for span in spec.low.spans()
    ]
    assert manifest["code_bytes"] == sum(len(line.data) for line in blob.listing)
    assert manifest["symbols"]["reset_vector"] == "0xfffffff0"
    assert list(manifest["symbols"].values()) == sorted(manifest["symbols"].values())


def test_manifest_of_a_stage_and_no_path_of_this_machine(tmp_path):
    path = tmp_path / "my.s"
    path.write_text(STAGE.text)
    one = build(BARE, [read_stage(STAGE.slot, str(path))])
    (stage,) = one.manifest["stages"]
    assert stage["sha256"] == hashlib.sha256(STAGE.text.encode()).hexdigest()
    assert stage["memory"] == [{"start": "0x9000", "end": "0x9100"}]
    for text in (one.to_json(), one.listing_text()):
        assert str(tmp_path) not in text
        assert str(resources.files("pvhboot.shim")) not in text
        assert not re.search(r'"/', text)


@pytest.mark.parametrize(("verbose", "marks"), BUILDS.values(), ids=BUILDS)
def test_manifest_of_a_build(verbose, marks):
    manifest = build(BARE, verbose=verbose, marks=marks).manifest
    assert (manifest["verbose"], manifest["marks"]) == (verbose, marks)


# What a verbose build tells, in its order.
_ACPI_POSTS = ["PROTECTED_MODE", "PARAMS", "MEMMAP", "MODULES", "ACPI", "START_INFO", "HANDOFF"]
_PC_POSTS = [*_ACPI_POSTS[:1], "CHIPSET", *_ACPI_POSTS[1:5], "SMBIOS", "MP_TABLE", *_ACPI_POSTS[5:]]
TOLD = {
    "bare": [post for post in _ACPI_POSTS if post != "ACPI"],
    "microvm": [*_ACPI_POSTS[:4], "MP_TABLE", *_ACPI_POSTS[5:]],
    "microvm-acpi": _ACPI_POSTS,
    "pc": _PC_POSTS,
    "q35": _PC_POSTS,
    "universal": _PC_POSTS,
}


@pytest.fixture(scope="module")
def verbose_blob(spec):
    return build(spec, verbose=True)


def posts(one):
    """The names of the records that are told, in the code's order."""
    told = [line.text for line in one.listing if line.text.startswith("mov esi, offset post_")]
    return [text.removeprefix("mov esi, offset post_") for text in told]


def test_a_verbose_build_tells_its_progress(spec, blob, verbose_blob):
    assert posts(blob) == []
    assert posts(verbose_blob) == TOLD[spec.name]
    with_stage = build(spec, [STAGE], verbose=True)
    assert posts(with_stage) == [*TOLD[spec.name][:-1], "STAGE", "HANDOFF", "STAGE"]
    assert set(blob.symbols) < set(verbose_blob.symbols)


def marks_of(one):
    """(port, value) of each store of a byte to the ports of the marks; the value is that of the last load before."""
    value, found = None, []
    for line in one.listing:
        if line.text.startswith("mov al, MARK_"):
            value = line.data[1]
        if line.text.startswith("out MARK_"):
            assert line.data[0] == 0xE6, "out imm8, al"
            found.append((line.data[1], value))
    return found


def test_a_build_with_marks_marks_the_start_and_the_kernel(spec, blob):
    assert marks_of(blob) == []
    one = build(spec, marks=True)
    loads = [(line.text, line.data.hex()) for line in one.listing if line.text.startswith("mov al, MARK_")]
    ways = [("mov al, MARK_LINUX_PVH", "b004"), *([("mov al, MARK_LINUX_FW_CFG", "b002")] if spec is not BARE else [])]
    assert loads == [("mov al, MARK_FIRMWARE_START", "b001"), *ways]
    assert marks_of(one) == [(0xF5, 1), (0xF4, 4 if spec is BARE else 2)]
    first = one.data[0x8000:0x8004] if one.paddr == 0xFFFF0000 else b""
    assert first == bytes.fromhex("b001 e6f5"), "before anything else"


# What does not fit, and what does not exist.


def stage_of(size):
    return make_stage("before-handoff", "huge.s", f"# Clobbers: nothing\nret\n.skip {size - 1}")


def test_a_stage_up_to_the_last_byte_fits_and_one_more_does_not(spec):
    small = build(spec, [stage_of(1)])
    there = code_room(spec)
    used = max(end for line in small.listing if (end := line.address + len(line.data) - CODE_ORIGIN) <= there)
    room = there - used
    full = build(spec, [stage_of(1 + room)])
    assert full.data[-0x8000 + there :] == small.data[-0x8000 + there :]
    with pytest.raises(AssemblyError, match=rf"^huge\.s: {there + 1} bytes of code do not fit: there are {there}$"):
        build(spec, [stage_of(2 + room)])


@pytest.mark.parametrize(
    "body",
    [".skip 0x8000", ".skip 0x10000", ".skip 0xfffff", "nop\n" * 32700, "nop\n" * 33000],
    ids=["32K", "64K", "1M", "into-the-reset-vector", "past-the-end"],
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


@pytest.mark.parametrize("file", ["params.s", "fw_cfg.s"])
def test_sources_replace_a_file_and_an_unknown_name_is_refused(spec, blob, file):
    other = build(spec, sources={"flat32.s": asm_source("flat32.s") + "\n    nop\n"})
    assert sum(line.text == "nop" for line in other.listing) == sum(line.text == "nop" for line in blob.listing) + 1
    assert build(spec, sources={"flat32.s": asm_source("flat32.s")}) == blob
    with pytest.raises(BootError, match=r"^the firmware has no source file bogus\.s$"):
        build(spec, sources={"bogus.s": ""})
    if (file == "params.s") != (spec is BARE):
        with pytest.raises(BootError, match=f"no source file {file}"):
            build(spec, sources={file: ""})
    else:
        assert build(spec, sources={file: asm_source(file)}) == blob


def test_an_error_in_a_replaced_file_names_it():
    with pytest.raises(AssemblyError, match=r"^tables\.s:2: bogus_symbol is not defined"):
        build(BARE, sources={"tables.s": "rom_gdt: ram_gdtr: rom_gdtr:\n.long bogus_symbol"})


# Listing and symbols.


@pytest.mark.parametrize("stages", [(), (STAGE,)], ids=["plain", "stage"])
def test_the_listing_covers_every_byte_that_is_not_0(spec, stages):
    one = build(spec, stages, verbose=True)
    covered = bytearray(len(one.data))
    for line in one.listing:
        at = line.address - one.paddr
        assert one.data[at : at + len(line.data)] == line.data
        assert not any(covered[at : at + len(line.data)]), "two lines say what a byte is"
        covered[at : at + len(line.data)] = b"\x01" * len(line.data)
    head = {0, 1, 2, 3, 4} if spec is BARE else set()  # PVHB, version 1
    assert {at for at, byte in enumerate(one.data) if byte and not covered[at]} == head


# The files that a listing shows. Those that have nothing but macros, or only a stage's build has, are not there.
_READ = "fw_cfg_read ram_range fw_cfg_panics panic tables panics machine_records"
LISTED = {
    "bare": "params memmap modules start_info handoff params_panics panic tables panics",
    "microvm": "fw_cfg e820 fw_cfg_kernel mptable start_info handoff memmap_insert sum_bytes cpus bzimage linux"
    f" {_READ} mp_static",
    "microvm-acpi": "fw_cfg e820 fw_cfg_kernel acpi start_info handoff memmap_insert sum_bytes acpi_routines acpi_panics"
    f" bzimage linux {_READ} file_names",
    "pc": "chipset fw_cfg e820 fw_cfg_kernel acpi smbios mptable start_info handoff memmap_insert sum_bytes pci_irqs cpus"
    f" pci_store fseg acpi_routines acpi_panics bzimage linux {_READ} file_names",
}
LISTED["q35"] = LISTED["pc"]
LISTED["universal"] = f"{LISTED['pc']} mp_static"


def test_listing_text(spec, blob):
    lines = blob.listing_text().split("\n")
    assert lines[0] == "; realmode.s"
    assert lines[1] == "ffff8000  real_mode:"
    assert next(line for line in lines if line.endswith("  cld")).split()[1] == "fc"
    files = [line[2:] for line in lines if line.startswith("; ")]
    assert files == [f"{name}.s" for name in f"realmode flat32 {LISTED[spec.name]} reset".split()]
    labels = {line.split()[1].removesuffix(":") for line in lines if re.fullmatch(r"[0-9a-f]{8}  \w+:", line)}
    assert labels == set(blob.symbols)


def test_locate(blob):
    place = blob.locate(RESET_VECTOR)
    assert (place.symbol, place.offset, place.source) == ("reset_vector", 0, "reset.s:9")
    handoff = blob.locate(blob.symbols["handoff"] + 2)
    assert str(handoff) == "handoff+0x2 (handoff.s:40)"
    assert blob.locate(blob.symbols["panic_STAGE_END"] + 5).symbol == "panic_STAGE_END"
    assert blob.locate(0xFFFFFFF8).source == "reset.s:13"
    assert blob.locate(0x1000) is None
    assert blob.locate(0xFFFF0000) is None
    assert blob.locate(RESET_VECTOR - 1) is None
    assert blob.locate(RESET_VECTOR + 7).symbol == "reset_vector"


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
    path = tmp_path / "fw.elf"
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
WITHOUT_CONTRACT = ("macros.s", "tables.s", "guest_data.s", "guest_serial.s", "sum_bytes.s")


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


@pytest.mark.parametrize("name", [name for name in ASM_FILES if not name.startswith("guest")])
def test_each_routine_that_is_called_has_a_contract(name):
    """Above its label, or at the head of its file if that is about it alone."""
    called = {label for file in ASM_FILES for label in re.findall(r"^\s+call ([a-z]\w+)$", asm_source(file), re.MULTILINE)}
    lines = asm_source(name).split("\n")
    for at, line in enumerate(lines):
        label = line.removesuffix(":")
        if label == line or label not in called:
            continue
        above = list(itertools.takewhile(lambda text: text.startswith("#"), reversed(lines[:at])))
        assert [word for word in ("In:", "Out:", "Clobbers:") if any(word in text for text in above)] == [
            "In:",
            "Out:",
            "Clobbers:",
        ], label


def test_the_firmwares_are_made_of_all_source_files():
    files = {name for name in ASM_FILES if not name.startswith("guest")}
    options = Options(verbose=True)
    used = {unit.name for spec in FIRMWARES.values() for unit in firmware_units(spec, [STAGE], {}, options)}
    assert used == {*files, "panics.s", "posts.s", "machine_records.s", "mp_static.s", "file_names.s", "my.s"}


ACPI_NAMES = {"acpi_script_name": b"etc/table-loader", "acpi_rsdp_name": b"etc/acpi/rsdp"}
SMBIOS_NAMES = {"smbios_tables_name": b"etc/smbios/smbios-tables", "smbios_anchor_name": b"etc/smbios/smbios-anchor"}


def test_the_names_of_files_that_the_firmware_looks_for(spec, blob):
    acpi = ACPI_NAMES if spec in (MICROVM_ACPI, PC, Q35, UNIVERSAL) else {}
    names = {**acpi, **(SMBIOS_NAMES if spec in (PC, Q35, UNIVERSAL) else {})}
    for label, name in names.items():
        at = blob.symbols[label] - blob.paddr
        assert blob.data[at : at + 56] == name.ljust(56, b"\0")
    assert {label for label in blob.symbols if label.endswith("_name")} == set(names)
