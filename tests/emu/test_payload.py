"""That the check sees what a firmware does to a kernel whose pages are mapped from its file, and are not read back."""

from pathlib import Path

import pytest
from pvhboot.emu.check import VIOLATED
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import HANDOFF
from pvhboot.emu.session import Outcome, boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.memory import GuestMemory
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import pvh
from pvhboot.shim.abi.elf import PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE
from pvhboot.shim.abi.x86 import PAGE_SIZE
from pvhboot.shim.elfwriter import ElfSegment, note, write_elf
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE, MIB
from pvhboot.shim.stage import make_stage
from tiny import HALT, PADDR

FILE_PAGES, ZERO_PAGES = 4, 3
BYTES = HALT.ljust(FILE_PAGES * PAGE_SIZE, b"\x5a")
ZEROS = PADDR + len(BYTES)
END = ZEROS + ZERO_PAGES * PAGE_SIZE

STORES = {  # by the firmware, right before the handoff: an instruction, and where the check sees it
    "none": ("nop", None),
    "a load": (f"mov esi, [{PADDR + PAGE_SIZE}]", None),
    "a load of what is zero": (f"mov esi, [{ZEROS + PAGE_SIZE}]", None),
    "the byte that was there": (f"mov byte ptr [{PADDR + PAGE_SIZE}], 0x5a", None),
    "a zero on zeros": (f"mov byte ptr [{ZEROS + PAGE_SIZE}], 0", None),
    "the first page": (f"mov byte ptr [{PADDR + 1}], 0xee", PADDR + 1),
    "the last byte of the file": (f"mov byte ptr [{ZEROS - 1}], 0xee", ZEROS - 1),
    "over two pages": (f"mov dword ptr [{PADDR + 3 * PAGE_SIZE - 1}], 0xeeeeee5a", PADDR + 3 * PAGE_SIZE),
    "the first zero": (f"mov byte ptr [{ZEROS}], 1", ZEROS),
    "the last zero": (f"mov byte ptr [{END - 1}], 1", END - 1),
}


@pytest.fixture(scope="module")
def kernel_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One segment of whole pages, entered at its first byte, with zeros behind."""
    entry = note(pvh.NOTE_NAME, pvh.XEN_ELFNOTE_PHYS32_ENTRY, PADDR.to_bytes(4, "little"))
    segments = (
        ElfSegment(PT_LOAD, PADDR, BYTES, END - PADDR, PF_R | PF_W | PF_X, PAGE_SIZE),
        ElfSegment(PT_NOTE, 0, entry, len(entry), PF_R, 4),
    )
    path = tmp_path_factory.mktemp("payload") / "vmlinux"
    path.write_bytes(write_elf(32, PADDR, segments, {}))
    return path


def booted(kernel: Kernel, engine_name: str, instruction: str) -> Outcome:
    stage = make_stage("before-handoff", "store.s", f"# Clobbers: esi\n    {instruction}\n    ret\n")
    blob = build(BARE, [stage])
    plan = make_plan(BARE, blob.data, kernel, memory=16 * MIB)
    return boot(plan, blob, get_engine(engine_name), Until(HANDOFF), Limits(seconds=20.0))


@pytest.mark.parametrize(("instruction", "changed"), STORES.values(), ids=STORES.keys())
def test_what_the_firmware_stores_into_a_mapped_kernel_is_seen(
    kernel_path: Path, engine_name: str, instruction: str, changed: int | None
) -> None:
    with Kernel.open(kernel_path) as kernel:
        outcome = booted(kernel, engine_name, instruction)
    assert outcome.handoff is not None
    memory = outcome.handoff.memory
    assert isinstance(memory, GuestMemory)
    assert memory.mapped == len(BYTES)
    broken = [(one.clause, one.detail) for one in outcome.findings if one.status == VIOLATED]
    if changed is None:
        assert broken == []
    else:
        what = "kernel segment" if changed < ZEROS else "the zeroed part of the kernel segment"
        assert broken == [("memory.payload", f"{what} at {PADDR:#x} was changed at {changed:#x}")]
