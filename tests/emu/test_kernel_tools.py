"""`pvhboot extract`, `note` and `inspect` as anybody uses them; what they make is booted, in QEMU and on the engines."""

import filecmp
import gzip
import io
import os
import re
import struct
import subprocess
import sys

import pytest
from command_line import command, fails
from elftools.elf.elffile import ELFFile
from forge_bzimage import PACKERS, bzimage, pack_payload
from forge_elf import (
    CODE,
    ENTRY,
    GNU_NOTE,
    PADDR,
    entry_note,
    forge,
    load_segment,
    note_segment,
    patch_header,
    patch_program_header,
)
from host import QEMU
from malformed_notes import MALFORMED
from plain import running
from pvhboot.emu.cli import main
from pvhboot.loader.kernel import Kernel
from pvhboot.shim.abi.elf import PF_R, PF_W, PT_LOAD
from pvhboot.shim.elfwriter import ElfSegment
from pvhboot.shim.stock import default_guest

FW_CFG_KERNEL_ENTRY = 0x10  # QEMU docs/specs/fw_cfg.rst

# extract


@pytest.mark.parametrize(("version", "codec"), [("6.1", "lz4"), ("6.12", "zstd")])
def test_a_distributions_vmlinuz_gives_what_the_tools_give(capsys, tmp_path, guest_file, version, codec):
    """tests/fetch-guests has unpacked the other with lz4 and zstd."""
    out = command(capsys, "extract", guest_file(f"vmlinuz-{version}"), "-o", tmp_path / "vmlinux")
    vmlinux = guest_file(f"vmlinux-{version}")
    assert filecmp.cmp(tmp_path / "vmlinux", vmlinux, shallow=False)
    first, second = out.splitlines()
    assert f"vmlinux: {vmlinux.stat().st_size} bytes, from {guest_file(f'vmlinuz-{version}')} (bzImage, {codec}, " in first
    assert re.fullmatch(r".*/vmlinux: ELF64, bootable: PHYS32_ENTRY 0x1\w+ in PT_NOTE 0", second)
    offset, size = re.search(r"(\d+) bytes at (0x\w+)\)$", first).group(2, 1)
    with guest_file(f"vmlinuz-{version}").open("rb") as file:
        file.seek(int(offset, 16))
        magic = file.read(4)
        assert magic in (b"\x02\x21\x4c\x18", b"\x28\xb5\x2f\xfd")
        file.seek(int(offset, 16) + int(size) - 4)
        assert struct.unpack("<I", file.read(4)) == (vmlinux.stat().st_size,)


@pytest.mark.parametrize("codec", PACKERS)
def test_every_compression_is_undone(capsys, tmp_path, codec):
    for name, file in (("packed", PACKERS[codec](forge())), ("bzimage", bzimage(pack_payload(codec, forge())))):
        (tmp_path / name).write_bytes(file)
        out = command(capsys, "extract", tmp_path / name, "-o", tmp_path / "elf")
        assert (tmp_path / "elf").read_bytes() == forge()
        where = f"({codec}, {len(file)} bytes at 0x0)" if name == "packed" else f"(bzImage, {codec}, "
        assert where in out
        assert f"elf: ELF64, bootable: PHYS32_ENTRY {ENTRY:#x}" in out


def test_a_kernel_that_is_no_pvh_kernel_is_extracted_too(capsys, tmp_path, guest_file):
    out = command(capsys, "extract", guest_file("xen.gz"), "-o", tmp_path / "xen")
    assert (tmp_path / "xen").read_bytes() == gzip.decompress(guest_file("xen.gz").read_bytes())
    assert "xen: ELF32, not bootable: no PHYS32_ENTRY note, so no PVH kernel" in out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (forge, "in: nothing to extract: it is an ELF file already"),
        (lambda: gzip.compress(b"#!/bin/sh"), "in: not an ELF file, but gzip of a script"),
        (lambda: b"hello\n", "in: not an ELF file, but a text file"),
        (lambda: b"", "in: an empty file"),
        (lambda: gzip.compress(forge())[:-9], "in: truncated gzip"),
    ],
)
def test_extract_refuses_in_one_line_and_writes_nothing(capsys, tmp_path, make, message):
    (tmp_path / "in").write_bytes(make())
    assert message in fails(capsys, "extract", tmp_path / "in", "-o", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_kernel_is_not_extracted_over_itself(capsys, tmp_path):
    (tmp_path / "in").write_bytes(gzip.compress(forge()))
    assert "is to be read and written" in fails(capsys, "extract", tmp_path / "in", "-o", tmp_path / "in")
    assert (tmp_path / "in").read_bytes() == gzip.compress(forge())


# note


def without_note(data):
    """The conformance guest as a hobby kernel: the same code, the same symbols, one program header fewer or an idle one."""
    elf = ELFFile(io.BytesIO(data))
    headers = [segment.header for segment in elf.iter_segments()]
    (noted,) = (at for at, header in enumerate(headers) if header["p_type"] == "PT_NOTE")
    idle = patch_program_header(data, noted, type=0)
    return [patch_header(data, phnum=noted), idle] if noted == len(headers) - 1 else [idle]


@pytest.mark.parametrize("bits", [32, 64])
def test_a_kernel_without_a_note_boots_with_the_one_that_is_injected(capsys, tmp_path, bits):
    guest = default_guest(bits)
    entry = Kernel.from_bytes(guest, "guest").entry
    for number, data in enumerate(without_note(guest)):
        path, out = tmp_path / f"hobby{number}", tmp_path / f"pvh{number}"
        path.write_bytes(data)
        assert "no ELF notes at all" in fails(capsys, "boot", path)
        said = command(capsys, "note", path, "-o", out, "--entry", f"{entry:#x}")
        assert f": PHYS32_ENTRY {entry:#x} injected: notes of {12 + 4 + bits // 8} bytes at 0x" in said
        assert f": ELF{bits}, bootable: PHYS32_ENTRY {entry:#x} in PT_NOTE 0" in said
        assert re.search(r": entered there by qemu, (?:firecracker, .*)?xen, pvhboot$", said, re.MULTILINE)
        assert "clauses of the PVH ABI are met" in command(capsys, "boot", out, "--until", "exit")


@pytest.mark.usefixtures("plain_qemu")
@pytest.mark.parametrize("bits", [32, 64])
def test_qemu_takes_it_as_it_takes_the_original(capsys, tmp_path, firmware, bits):
    guest = default_guest(bits)
    entry = Kernel.from_bytes(guest, "guest").entry
    options = ("-M", "microvm,acpi=off", "-m", "128M", "-bios", firmware("microvm"), "-kernel")
    (tmp_path / "hobby").write_bytes(without_note(guest)[0])
    line = [QEMU, "-display", "none", *map(str, options), str(tmp_path / "hobby")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "without PVH ELF Note" in done.stderr) == (1, True)
    command(capsys, "note", tmp_path / "hobby", "-o", tmp_path / "pvh", "--entry", hex(entry))
    (tmp_path / "guest").write_bytes(guest)
    said = []
    for name in ("guest", "pvh"):
        with running(tmp_path, *options, tmp_path / name) as qemu:
            assert qemu.wait(lambda: qemu.ended or "result" in qemu.console), name
            said.append(qemu.console)
    assert said[0] == said[1] != ""


@pytest.mark.usefixtures("plain_qemu")
@pytest.mark.parametrize(("make", "old"), MALFORMED.values(), ids=MALFORMED)
def test_qemu_enters_what_was_repacked_where_the_note_says(capsys, tmp_path, firmware, make, old):
    (tmp_path / "in").write_bytes(make())
    command(capsys, "note", tmp_path / "in", "-o", tmp_path / "out")
    options = ("-M", "microvm,acpi=off", "-m", "128M", "-bios", firmware("microvm"), "-kernel", tmp_path / "out", "-S")
    with running(tmp_path, *options) as qemu:
        assert struct.unpack("<I", qemu.fw_cfg(FW_CFG_KERNEL_ENTRY, 4)) == (old[0][1],)


def test_an_entry_by_name(capsys, tmp_path):
    guest = default_guest(64)
    symbol = next(
        symbol.name
        for section in ELFFile(io.BytesIO(guest)).iter_sections()
        if section["sh_type"] == "SHT_SYMTAB"
        for symbol in section.iter_symbols()
        if symbol["st_value"] == Kernel.from_bytes(guest, "guest").entry
    )
    (tmp_path / "hobby").write_bytes(without_note(guest)[0])
    said = command(capsys, "note", tmp_path / "hobby", "-o", tmp_path / "pvh", "--entry", symbol)
    assert f"PHYS32_ENTRY {Kernel.from_bytes(guest, 'guest').entry:#x} injected" in said


def test_the_picture_is_ascii_where_nothing_else_can_be_shown(tmp_path):
    (tmp_path / "kernel").write_bytes(forge())
    shown = {}
    for encoding in ("utf-8", "ascii"):
        line = [sys.executable, "-c", "import sys; from pvhboot.emu.cli import main; sys.exit(main())", "inspect", "kernel"]
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(line, capture_output=True, check=True, cwd=tmp_path, env=environment)
        shown[encoding] = done.stdout.decode(encoding)
    assert shown["ascii"] == shown["utf-8"].replace("█", "#").replace("░", ".").replace("─", "-")
    assert "#" in shown["ascii"]


def test_an_entry_in_data_is_warned_of(capsys, tmp_path):
    data = ElfSegment(PT_LOAD, 0x200000, bytes(16), 16, PF_R | PF_W, 0x1000)
    (tmp_path / "kernel").write_bytes(forge(notes=b"", more=[data]))
    for entry, warned in (("0x200000", True), (hex(PADDR), False)):
        assert main(["note", str(tmp_path / "kernel"), "--entry", entry, "-o", str(tmp_path / "out")]) == 0
        said = capsys.readouterr().out
        assert ("warning: the entry lies in PT_LOAD 1, which is not marked as code" in said) == warned


def test_what_was_wrong_with_the_old_note_is_said(capsys, tmp_path):
    (tmp_path / "in").write_bytes(forge(notes=entry_note(size=4), note_align=8, more=[note_segment(GNU_NOTE)]))
    lines = command(capsys, "note", tmp_path / "in", "-o", tmp_path / "out").splitlines()
    assert re.search(rf"out: PHYS32_ENTRY {ENTRY:#x} repacked: notes of 60 bytes at 0x\w+, with 1 other$", lines[0])
    assert lines[3].endswith("out: entered there by qemu, firecracker, cloud-hypervisor, libkrun, xen, pvhboot")
    assert lines[1].endswith(f"out: instead of PHYS32_ENTRY {ENTRY:#x} in PT_NOTE 0, with a descriptor of 4 bytes, p_align 8")


def test_a_real_kernel_keeps_all_but_its_header(capsys, tmp_path, guest_file):
    """Xen's hypervisor: an ELF32 with a note segment, but no PHYS32_ENTRY in it; stripped."""
    command(capsys, "extract", guest_file("xen.gz"), "-o", tmp_path / "xen")
    assert "no symbol table" in fails(capsys, "note", tmp_path / "xen", "-o", tmp_path / "out", "--entry", "start")
    said = command(capsys, "note", tmp_path / "xen", "-o", tmp_path / "out", "--entry", "2M")
    assert "out: ELF32, bootable: PHYS32_ENTRY 0x200000 in PT_NOTE 0" in said
    before, after = ((tmp_path / name).read_bytes() for name in ("xen", "out"))
    changed = [at for at, byte in enumerate(before) if after[at] != byte]
    elf = ELFFile(io.BytesIO(before))
    (noted,) = (at for at, segment in enumerate(elf.iter_segments()) if segment["p_type"] == "PT_NOTE")
    start = elf.header["e_phoff"] + 32 * noted
    assert changed
    assert all(start <= at < start + 32 for at in changed)


def test_a_loader_that_goes_another_way_is_named(capsys, tmp_path):
    """QEMU prefers a Multiboot header to any note; linux-loader reads no ELF32."""
    header = struct.pack("<III", 0x1BADB002, 0, -0x1BADB002 & 0xFFFFFFFF)
    (tmp_path / "in").write_bytes(forge(32, loads=[load_segment(data=header + CODE)], notes=b""))
    lines = command(capsys, "note", tmp_path / "in", "-o", tmp_path / "out", "--entry", hex(PADDR + 12)).splitlines()
    assert [line.partition("out: ")[2].partition(":")[0] for line in lines[2:]] == [
        "entered there by xen, pvhboot",
        "qemu accepts, by its Multiboot",
        "firecracker refuses",
        "cloud-hypervisor refuses",
        "libkrun refuses",
    ]


NOTE_ERRORS = {
    "compressed": (lambda: gzip.compress(forge()), [], "in: gzip data: pvhboot extract takes the ELF file out of it"),
    "bzimage": (lambda: bzimage(pack_payload("xz", forge())), [], "in: a bzImage: pvhboot extract takes"),
    "text": (lambda: b"hello\n", [], "in: not an ELF file, but a text file"),
    "good": (forge, [], "in: nothing to repack"),
    "no-entry": (lambda: forge(notes=b""), [], "in: no PHYS32_ENTRY note to repack: give its entry with --entry"),
    "number": (forge, ["--entry", "0xyz"], "in: cannot read --entry '0xyz'"),
    "no-symbol": (forge, ["--entry", "start"], "in: no symbol 'start'"),
    "outside": (forge, ["--entry", "0x5"], "in: no bytes of the file are loaded to the entry 0x5"),
}


@pytest.mark.parametrize(("make", "arguments", "message"), NOTE_ERRORS.values(), ids=NOTE_ERRORS)
def test_note_refuses_in_one_line_and_writes_nothing(capsys, tmp_path, make, arguments, message):
    (tmp_path / "in").write_bytes(make())
    assert message in fails(capsys, "note", tmp_path / "in", "-o", tmp_path / "out", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_kernel_is_not_overwritten(capsys, tmp_path):
    (tmp_path / "in").write_bytes(forge())
    (tmp_path / "link").symlink_to("in")
    assert "is to be read and written" in fails(capsys, "note", tmp_path / "in", "-o", tmp_path / "link", "--entry", "1M")
    assert (tmp_path / "in").read_bytes() == forge()
