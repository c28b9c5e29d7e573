"""QEMU's verdicts, against the QEMU that is installed: does its -kernel take the file, by which road, and at which entry."""

import struct
from collections.abc import Callable
from pathlib import Path

import malformed_notes
import pytest
from forge_bzimage import bzimage, bzimage_of
from forge_elf import (
    CODE,
    ENTRY,
    GNU_NOTE,
    HOSTILE,
    LINUX_LOADER,
    PADDR,
    XEN_NOTES,
    entry_note,
    forge,
    load_segment,
    note_segment,
    patch_bytes,
    patch_header,
    patch_program_header,
)
from pvhboot.emu.engines.qemu import qtest
from pvhboot.loader.image import FileImage
from pvhboot.loader.verdicts.base import Verdict
from pvhboot.loader.verdicts.qemu import judge_qemu
from pvhboot.loader.verdicts.raw import RawFile
from pvhboot.shim.abi import fw_cfg
from pvhboot.shim.errors import BootError
from pvhboot.shim.guest_library import LIBRARY
from pvhboot.shim.machines import MIB, MICROVM
from pvhboot.shim.stock import build_guest

pytestmark = pytest.mark.usefixtures("plain_qemu")

MULTIBOOT_INFO = 0x9500  # where QEMU has the initrd's address point for a Multiboot kernel: hw/i386/multiboot.c, ADDR_MBI
SETUP_ADDR = 0x16  # an item that nobody but a Linux boot has: include/standard-headers/linux/qemu_fw_cfg.h
MULTIBOOT = struct.pack("<III", 0x1BADB002, 0, -0x1BADB002 & 0xFFFFFFFF)
HANG_SECONDS = 3.0

Make = Callable[[], bytes]


def item(machine: qtest.QtestMachine, key: int) -> int:
    """A number of 32 bits by fw_cfg's ports."""
    machine.port_write(fw_cfg.FW_CFG_PORT, 2, key)
    return int.from_bytes(bytes(machine.port_read(fw_cfg.FW_CFG_DATA_PORT, 1) for _ in range(4)), "little")


def ask_qemu(path: Path, monkeypatch: pytest.MonkeyPatch, patience: float | None) -> tuple[str, str | None, int | None]:
    """What QEMU does with -kernel: outcome, road and entry as a Verdict has them."""
    if patience is not None:
        monkeypatch.setattr(qtest, "_TIMEOUT", patience)
    try:
        with qtest.QtestMachine(MICROVM, 128 * MIB, 1, "tcg", ["-kernel", str(path)]) as machine:
            if item(machine, SETUP_ADDR):
                return "accepts", "Linux boot protocol", item(machine, fw_cfg.FW_CFG_KERNEL_ADDR)
            road = "Multiboot" if item(machine, fw_cfg.FW_CFG_INITRD_ADDR) == MULTIBOOT_INFO else "PVH"
            return "accepts", road, item(machine, fw_cfg.FW_CFG_KERNEL_ENTRY)
    except BootError as error:
        died = any(words in str(error) for words in ("ended with signal", "has not answered", "failed to allocate"))
        return "crashes" if died else "refuses", None, None


def compare(path: Path, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """The model's verdict, which QEMU shares, unless the model does not know."""
    image = FileImage(path)
    verdict = judge_qemu(RawFile(image))
    image.close()
    if verdict.outcome != "unknown":
        patience = HANG_SECONDS if verdict.outcome == "crashes" else None
        told = ask_qemu(path, monkeypatch, patience)
        assert told == (verdict.outcome, verdict.road, verdict.entry), verdict.reason
    return verdict


def aligned(align: int, notes: bytes | None = None, bits: int = 64) -> Make:
    """A kernel whose PT_NOTE says that p_align, and lies where it would with another."""
    return lambda: patch_program_header(forge(bits, notes=notes), 1, align=align)


FORGED: list[tuple[str, Make]] = [
    ("plain", forge),
    ("elf32", lambda: forge(32)),
    *((f"p_align {align:#x}", aligned(align)) for align in (0, 1, 2, 3, 4, 8, 13, 1 << 31, 1 << 32, (1 << 64) - 1)),
    *((f"p_align {align}, behind others", aligned(align, XEN_NOTES + entry_note())) for align in (0, 4, 8, 13)),
    *((f"p_align {align} in an ELF32", aligned(align, entry_note(size=4), 32)) for align in (0, 8, 13, 0xFFFFFFFF)),
    *(
        (f"descriptor of {size}", lambda size=size: forge(notes=entry_note(5 if size else 0, size)))
        for size in (0, 1, 2, 3, 12)
    ),
    ("entry of 64 bits in an ELF32", lambda: forge(32, notes=entry_note(1 << 32))),
    ("the last of two", lambda: forge(more=(note_segment(entry_note(PADDR)),))),
    ("the first of two", lambda: forge(more=(note_segment(GNU_NOTE),))),
    ("behind the segment", lambda: forge(notes=GNU_NOTE, more=(note_segment(b""), note_segment(entry_note())))),
    ("e_flags", lambda: patch_bytes(forge(), 48, b"\4")),
    ("Multiboot", lambda: forge(32, loads=(load_segment(data=MULTIBOOT + CODE),))),
    ("Multiboot in pieces", lambda: forge(32, loads=(load_segment(data=MULTIBOOT + CODE), load_segment(PADDR * 4)))),
    ("Multiboot in an ELF64", lambda: forge(loads=(load_segment(data=MULTIBOOT + CODE),))),
    ("segment at 0", lambda: patch_program_header(forge(), 0, paddr=0)),
    ("segment beyond RAM", lambda: patch_program_header(forge(), 0, paddr=1 << 40)),
    ("segment in the ROM", lambda: patch_program_header(forge(), 0, paddr=0xFFFFF000, memsz=0x800)),
    ("no memory", lambda: patch_program_header(forge(), 0, memsz=0)),
    *(
        (f"{size:#x} bytes", lambda size=size: patch_program_header(forge(), 0, memsz=size))
        for size in (1 << 31, 3 << 30, 1 << 63)
    ),
    ("16 GiB of zeros", lambda: patch_program_header(forge(), 0, paddr=1 << 33, memsz=1 << 34)),
    ("offset wraps", lambda: patch_program_header(forge(), 0, offset=(1 << 64) - 0x20)),
    ("headers behind any file", lambda: patch_header(forge(), phoff=1 << 63)),
    ("zeros end where they would overlap", lambda: forge(loads=(load_segment(), load_segment(PADDR + 0x1000)))),
    ("bytes overlap", lambda: forge(loads=(load_segment(), load_segment(PADDR + 0x20)))),
    ("bzImage", lambda: bzimage_of("gzip", forge())),
    ("bzImage, loaded high", lambda: patch_bytes(bzimage_of("gzip", forge()), 0x211, b"\1")),
    ("bzImage of protocol 2.01", lambda: bzimage(b"x" * 9, protocol=0x201)),
    ("bzImage, cut", lambda: bzimage(b"x" * 9)[:0x900]),
    ("zeros", lambda: bytes(100_000)),
]


@pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(make, id=name) for name, make in FORGED),
        *(pytest.param(make, id=f"linux-loader {name}") for name, make, _ in LINUX_LOADER),
        *(pytest.param(make, id=f"malformed {name}") for name, (make, _) in malformed_notes.MALFORMED.items()),
        # Its 65535 segments take QEMU itself longer than anybody waits.
        *(
            pytest.param(make, id=f"hostile {name}")
            for name, make, _ in HOSTILE
            if name not in ("gzip-bomb", "extended-numbering")
        ),
    ],
)
def test_forged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(make())
    verdict = compare(path, monkeypatch)
    assert verdict.outcome != "unknown" or "wraps around in the file" in verdict.reason


@pytest.mark.parametrize("guest", LIBRARY, ids=[guest.name for guest in LIBRARY])
def test_conformance_guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guest: object) -> None:
    path = tmp_path / "guest"
    path.write_bytes(build_guest(guest.name))  # type: ignore[attr-defined]
    assert compare(path, monkeypatch).outcome != "unknown"


@pytest.mark.parametrize(
    ("name", "road"),
    [
        ("vmlinux-6.1", "PVH"),
        ("vmlinux-6.12", "PVH"),
        ("vmlinux-generic", "PVH"),
        ("vmlinuz-6.1", "Linux boot protocol"),
        ("vmlinuz-6.12", "Linux boot protocol"),
        ("vmlinuz-generic", "Linux boot protocol"),
        ("grub-i386-xen_pvh.bin", "PVH"),
        ("xen-shim", "Multiboot"),
        ("xen.gz", "Linux boot protocol"),
        ("memtest86+x64.bin", "Linux boot protocol"),
        ("busybox", None),
    ],
)
def test_real_files(guest_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str, road: str | None) -> None:
    assert compare(guest_file(name), monkeypatch).road == road


def test_the_comparison_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(forge())
    assert ask_qemu(path, monkeypatch, None) == ("accepts", "PVH", ENTRY)
    path.write_bytes(forge(notes=GNU_NOTE))
    assert ask_qemu(path, monkeypatch, None) == ("refuses", None, None)
