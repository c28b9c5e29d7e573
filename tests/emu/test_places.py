"""Where an address lies, in words."""

import pytest
from pvhboot.emu.disassembly import decode
from pvhboot.emu.places import Places
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import BootPlan, make_plan
from pvhboot.shim.abi.elf import PF_R, PF_X, PT_LOAD, PT_NOTE
from pvhboot.shim.blob import Blob
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE, MIB, MICROVM
from pvhboot.shim.stock import default_blob, default_guest

HIGH = 0xFFFFFFFF80000000


def linux_like() -> bytes:
    """A kernel whose second segment is linked high, as Linux is."""
    low = ElfSegment(PT_LOAD, 0x1000000, bytes(0x100), 0x100, PF_R | PF_X, 16, 0x1000000)
    high = ElfSegment(PT_LOAD, 0x1100000, bytes(0x100), 0x1000, PF_R | PF_X, 16, HIGH + 0x1100000)
    notes = note(b"Xen\0", 18, (0x1000000).to_bytes(4, "little"))
    segments = [low, high, ElfSegment(PT_NOTE, 0, notes, len(notes), PF_R, 4, 0)]
    symbols = {"pvh_start": 0x1000000, "pvh_again": 0x1000010, "start_kernel": HIGH + 0x1100020}
    return write_elf(64, 0x1000000, segments, symbols)


def planned(blob: Blob, kernel: bytes, spec=MICROVM) -> BootPlan:
    return make_plan(spec, blob.data, Kernel.from_bytes(kernel, "kernel"), memory=128 * MIB)


def test_labels_and_lines_of_our_own_firmware_are_those_of_the_blob():
    blob = default_blob(BARE)
    places = Places(planned(blob, default_guest(64), BARE), blob)
    for line in blob.listing:
        assert places.locate(line.address) == blob.locate(line.address)
    assert str(places.locate(0xFFFFFFF0)).startswith("reset_vector (reset.s:")
    assert places.find("protected_mode") == blob.symbols["protected_mode"]
    assert str(places.locate(blob.symbols["protected_mode"] + 1)).startswith("protected_mode+0x1 (flat32.s:")


def test_of_a_foreign_firmware_there_are_offsets_at_both_its_places():
    blob = Blob(bytes(0x10000), {}, (), {})
    places = Places(planned(blob, default_guest(64)), blob)
    assert [str(places.locate(address)) for address in (0xFFFFFFF0, 0xFFFF0000, 0xF1234)] == ["ROM+0xfff0", "ROM", "ROM+0x1234"]


def test_symbols_of_a_kernel_where_it_is_loaded_and_where_it_is_mapped():
    blob = default_blob(MICROVM)
    places = Places(planned(blob, linux_like()), blob)
    expected = {
        0x1000004: "pvh_start+0x4",
        0x1000010: "pvh_again",
        0x1100024: "start_kernel+0x4",
        HIGH + 0x1100024: "start_kernel+0x4",
        HIGH + 0x1100010: None,
        0x5000: None,
        0x7000000: None,
    }
    assert {address: place and str(place) for address in expected for place in [places.locate(address)]} == expected
    assert places.find("start_kernel") == 0x1100020
    assert places.find_all("start_kernel") == {0x1100020, HIGH + 0x1100020}
    assert places.find_all("handoff") == {blob.symbols["handoff"]}


def test_a_stripped_kernel_has_offsets_and_no_names():
    blob = default_blob(MICROVM)
    stripped = write_elf(
        64,
        0x1000000,
        [
            ElfSegment(PT_LOAD, 0x1000000, bytes(0x100), 0x100, PF_R | PF_X, 16, 0x1000000),
            ElfSegment(PT_NOTE, 0, data := note(b"Xen\0", 18, (0x1000000).to_bytes(4, "little")), len(data), PF_R, 4, 0),
        ],
        {},
    )
    places = Places(planned(blob, stripped), blob)
    assert str(places.locate(0x1000020)) == "kernel+0x20"
    with pytest.raises(BootError, match="no symbol 'start_kernel': see the listing, or nm"):
        places.find("start_kernel")
    foreign = Blob(bytes(0x10000), {}, (), {})
    with pytest.raises(BootError, match=r"comes without labels \(give an address, or its manifest .*\); the kernel has none"):
        Places(planned(foreign, stripped), foreign).find("main")
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        plan = make_plan(MICROVM, foreign.data, kernel, memory=128 * MIB)
    with pytest.raises(BootError, match=r"'main': this firmware comes without labels .* see nm of the kernel"):
        Places(plan, foreign).find("main")


def test_a_kernel_that_was_moved_has_its_symbols_moved():
    blob = default_blob(MICROVM)
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        entry = next(symbol for symbol in kernel.symbols() if symbol.name == "guest_entry")
        plan = make_plan(MICROVM, blob.data, kernel, memory=128 * MIB)
        assert entry.paddr == kernel.entry
        moved = plan._replace(segments=tuple(s._replace(paddr=s.paddr + 0x200000) for s in plan.segments))
        assert Places(moved, blob).find("guest_entry") == entry.paddr + plan.moved_by + (0x200000 if moved.moved_by else 0)


@pytest.mark.parametrize(
    ("code", "bits", "text"),
    [
        ("ea5be000f0", 16, "ljmp 0xf000:0xe05b"),
        ("8ed8", 32, "mov ds, eax"),
        ("48ffc1", 64, "inc rcx"),
        ("48ffc1", 32, "dec eax"),
        ("0f04", 32, "(no instruction)"),
        ("", 32, "(no memory)"),
    ],
)
def test_an_instruction_as_text(code, bits, text):
    decoded = decode(bytes.fromhex(code) + bytes(4 if code not in ("", "0f04") else 0), 0, bits)
    assert decoded.text == text
