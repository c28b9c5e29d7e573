"""The check itself: what an engine may not see is a literal table, and whatever else is unseen fails a run."""

import struct

import pytest
from pvhboot.emu.check import OK, UNOBSERVABLE, VIOLATED, Finding, check, is_clean
from pvhboot.emu.clauses import CLAUSES
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.engines.names import ENGINES
from pvhboot.emu.handoff import UNOBSERVABLE_CLAUSES
from pvhboot.emu.reasons import HANDOFF
from pvhboot.emu.session import boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.machines import BARE, MIB, MICROVM
from pvhboot.shim.stock import default_blob, default_guest


def test_what_each_engine_cannot_observe():
    assert {engine: set(clauses) for engine, clauses in UNOBSERVABLE_CLAUSES.items()} == {
        "unicorn": set(),
        "kvm": set(),
        "qemu": {"cpu.mtrr"},
    }
    assert set(UNOBSERVABLE_CLAUSES) == set(ENGINES)


def test_a_clause_that_should_have_been_seen_fails_the_run():
    assert is_clean("kvm", [Finding("cpu.cr0", OK, "")])
    assert not is_clean("kvm", [Finding("cpu.mtrr", UNOBSERVABLE, "")])
    assert not is_clean("unknown engine", [Finding("cpu.mtrr", UNOBSERVABLE, "")])
    assert not is_clean("kvm", [Finding("cpu.cr0", VIOLATED, "")])


def handoff_and_plan():
    kernel = Kernel.from_bytes(default_guest(64), "guest")
    blob = default_blob(BARE)
    plan = make_plan(BARE, blob.data, kernel, memory=64 * MIB, cmdline="x")
    outcome = boot(plan, blob, get_engine("unicorn"), Until(HANDOFF), Limits())
    assert outcome.ok
    return outcome.handoff, plan


def violated(handoff, plan):
    return [finding.clause for finding in check(handoff, plan) if finding.status == VIOLATED]


def test_every_clause_gives_one_finding():
    assert [finding.clause for finding in check(*handoff_and_plan())] == list(CLAUSES)


def test_what_the_engine_did_not_read_is_unobservable():
    handoff, plan = handoff_and_plan()
    unseen = [finding.clause for finding in check(handoff._replace(has_mtrr=None), plan) if finding.status == UNOBSERVABLE]
    assert unseen == ["cpu.mtrr"]


def test_no_mtrr_no_clause_to_break():
    handoff, plan = handoff_and_plan()
    assert violated(handoff._replace(has_mtrr=False, mtrr_def_type=None), plan) == []


def test_registers_one_by_one():
    handoff, plan = handoff_and_plan()
    for name, value, clause in (
        ("eip", plan.entry + 1, "entry.eip"),
        ("cr0", 0x13, "cpu.cr0"),
        ("cr0", 0x10, "cpu.cr0"),
        ("cr0", 0x80000011, "cpu.cr0"),
        ("cr4", 1 << 5, "cpu.cr4"),
        ("eflags", 1 << 17, "cpu.eflags"),
        ("eflags", 1 << 8, "cpu.eflags"),
        ("eflags", 1 << 9, "cpu.eflags"),
    ):
        assert violated(handoff._replace(registers={**handoff.registers, name: value}), plan) == [clause], (name, value)


def test_segments_bit_by_bit():
    handoff, plan = handoff_and_plan()
    for name in ("cs", "ds", "es", "ss"):
        good = handoff.segments[name]
        for change in (
            {"base": 0x10},
            {"limit": 0xFFFFF},
            {"db": False},
            {"long": True},
            {"present": False},
            {"s": False},
            {"type": good.type ^ 8},
            {"type": good.type & ~2},
        ):
            segments = {**handoff.segments, name: good._replace(**change)}
            assert violated(handoff._replace(segments=segments), plan) == [f"cpu.{name}"], (name, change)
    for change in ({"base": 1}, {"limit": 0xFFFF}, {"selector": 0}, {"present": False}, {"type": 1}, {"s": True}):
        segments = {**handoff.segments, "tr": handoff.segments["tr"]._replace(**change)}
        assert violated(handoff._replace(segments=segments), plan) == ["cpu.tr"], change


class Corrupted:
    """Guest memory with some bytes replaced: what a broken firmware would have left."""

    def __init__(self, memory, changes):
        self._memory, self._changes = memory, changes

    def read(self, paddr, size):
        data = bytearray(self._memory.read(paddr, size))
        for at, change in self._changes:
            for offset, byte in enumerate(change, at - paddr):
                if 0 <= offset < size:
                    data[offset] = byte
        return bytes(data)

    def view(self, paddr, size):
        return memoryview(self.read(paddr, size))


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


INFO, MODLIST, MEMMAP, STRINGS = 0x6000, 0x8000, 0x7000, 0x20000

# What is written where, and every clause that it breaks.
BROKEN = {
    "magic": ([(INFO, u32(0x336EC579))], {"start_info.magic"}),
    "version": ([(INFO + 4, u32(0))], {"start_info.fields"}),
    "flags": ([(INFO + 8, u32(1))], {"start_info.fields"}),
    "rsdp": ([(INFO + 32, u64(0xE0000))], {"acpi.tables"}),
    "reserved": ([(INFO + 52, u32(1))], {"start_info.fields"}),
    "no-modules": ([(INFO + 12, u32(0))], {"modules.list"}),
    "a-module-too-few": ([(INFO + 12, u32(1))], {"modules.list"}),
    "list-at-0": ([(INFO + 16, u64(0))], {"modules.list"}),
    "list-above-1-gib": ([(INFO + 16, u64(0x40000000))], {"modules.list", "modules.entries"}),
    "list-above-4-gib": ([(INFO + 20, u32(1))], {"modules.list", "modules.entries"}),
    "cmdline-at-0": ([(INFO + 24, u64(0))], {"cmdline"}),
    "cmdline-another": ([(STRINGS, b"c")], {"cmdline"}),
    "cmdline-longer": ([(STRINGS + 3, b"x")], {"cmdline", "memory.disjoint"}),
    "cmdline-nowhere": ([(INFO + 24, u64(0xD0000000))], {"cmdline"}),
    "memmap-at-0": ([(INFO + 40, u64(0))], {"memmap.location", "memmap.ram"}),
    "memmap-nowhere": ([(INFO + 40, u64(0xD0000000))], {"memmap.location", "memmap.ram"}),
    "memmap-count-0": ([(INFO + 48, u32(0))], {"memmap.location", "memmap.count", "memmap.ram"}),
    "memmap-reserved": ([(MEMMAP + 20, u32(1))], {"memmap.entries"}),
    "memmap-type": ([(MEMMAP + 24 + 16, u32(9))], {"memmap.entries", "memmap.plan"}),
    "memmap-empty-entry": ([(MEMMAP + 24 + 8, u64(0))], {"memmap.entries", "memmap.plan"}),
    "memmap-wrapping-entry": ([(MEMMAP + 24 + 8, u64(2**64 - 1))], {"memmap.entries", "memmap.disjoint", "memmap.plan"}),
    "memmap-overlap": ([(MEMMAP + 24, u64(2 << 30))], {"memmap.disjoint", "memmap.plan"}),
    "memmap-unsorted": ([(MEMMAP, u64(5 << 30))], {"memmap.sorted", "memmap.disjoint", "memmap.ram", "memmap.plan"}),
    "memmap-too-much-ram": ([(MEMMAP + 8, u64((3 << 30) + 4096))], {"memmap.ram", "memmap.plan"}),
    "memmap-too-little-ram": ([(MEMMAP + 8, u64((3 << 30) - 4096))], {"memmap.ram", "memmap.plan"}),
    "module-moved": ([(MODLIST, u64(0x2000000))], {"modules.entries"}),
    "module-over-the-kernel": ([(MODLIST, u64(0x100000))], {"modules.entries"}),
    "module-above-4-gib": ([(MODLIST + 4, u32(1))], {"modules.entries"}),
    "module-size": ([(MODLIST + 8, u64(1))], {"modules.entries"}),
    "module-reserved": ([(MODLIST + 24, u64(1))], {"modules.entries"}),
    "module-line-gone": ([(MODLIST + 32 + 16, u64(0))], {"modules.entries"}),
    "module-line-another": ([(STRINGS + 4, b"x")], {"modules.entries"}),
    "module-line-in-the-list": ([(MODLIST + 32 + 16, u64(MODLIST))], {"modules.entries", "memory.disjoint"}),
    "kernel-changed": ([(0x100004, b"\xee")], {"memory.payload"}),
    "module-changed": ([(0xBFFFF000, b"\xee")], {"memory.payload"}),
    "rom-changed": ([(0xFFFF9000, b"\xee\xee")], {"rom.unwritten"}),
}

# The same where the firmware is not pvhboot's: its memory map need only be one that a kernel can use.
BROKEN_FOREIGN = {
    "nothing": ([], set()),
    "memmap-another": ([(MEMMAP + 8, u64((3 << 30) - 4096)), (MEMMAP + 24, u64(0xF0000000))], set()),
    "memmap-an-entry-too-few": ([(INFO + 48, u32(2))], set()),
    "memmap-an-entry-too-many": ([(INFO + 48, u32(4))], {"memmap.count", "memmap.entries", "memmap.sorted"}),
    "memmap-type": ([(MEMMAP + 24 + 16, u32(9))], {"memmap.entries"}),
    "memmap-too-much-ram": ([(MEMMAP + 8, u64((3 << 30) + 4096))], {"memmap.ram"}),
    "memmap-no-ram": ([(MEMMAP + 16, u32(2)), (MEMMAP + 48 + 16, u32(2))], {"memmap.ram"}),
    "memmap-overlap": ([(MEMMAP + 24, u64(2 << 30))], {"memmap.disjoint"}),
    "module-moved": ([(MODLIST, u64(0x2000000))], {"modules.entries"}),
    "rom-changed": ([(0xFFFF9000, b"\xee\xee")], {"rom.unwritten"}),
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A clean handoff with 5 GiB, a command line and two modules, the second with a line of its own."""
    folder = tmp_path_factory.mktemp("modules")
    modules = []
    for name, line in (("first", None), ("second", "two")):
        (folder / name).write_bytes(b"\x11" * 100)
        modules.append(Module(str(folder / name), line))
    blob = default_blob(BARE)
    plan = make_plan(
        BARE, blob.data, Kernel.from_bytes(default_guest(64), "guest"), memory=5 << 30, modules=modules, cmdline="one"
    )
    outcome = boot(plan, blob, get_engine("unicorn"), Until(HANDOFF), Limits())
    assert outcome.ok
    return outcome.handoff, plan


@pytest.mark.parametrize(("changes", "clauses"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_tables(clean, changes, clauses):
    handoff, plan = clean
    assert set(violated(handoff._replace(memory=Corrupted(handoff.memory, changes)), plan)) == clauses


@pytest.mark.parametrize(("changes", "clauses"), BROKEN_FOREIGN.values(), ids=BROKEN_FOREIGN.keys())
def test_broken_tables_of_a_foreign_firmware(clean, changes, clauses):
    handoff, plan = clean
    foreign = plan._replace(memmap=None)
    assert set(violated(handoff._replace(memory=Corrupted(handoff.memory, changes)), foreign)) == clauses


def test_a_foreign_firmware_may_keep_variables_in_a_rom_that_is_none(clean):
    handoff, plan = clean
    changed = handoff._replace(memory=Corrupted(handoff.memory, [(0xFFFF9000, b"\xee\xee")]))
    on_microvm = plan._replace(spec=MICROVM)
    assert violated(changed, on_microvm) == ["rom.unwritten"]
    assert violated(changed, on_microvm._replace(memmap=None)) == []
    said = next(finding.detail for finding in check(changed, on_microvm) if finding.clause == "rom.unwritten")
    assert said == "2 bytes of the ROM have changed, the first at 0xffff9000"


def test_start_info_elsewhere(clean):
    handoff, plan = clean
    for ebx in (0, 0xD0000000, 0xFFFF0000, 0x50000000):
        said = violated(handoff._replace(registers={**handoff.registers, "ebx": ebx}), plan)
        assert "start_info.location" in said


def test_every_clause_can_be_broken():
    elsewhere = {"entry.eip", "start_info.location", "cpu.mtrr", "cpu.tr", "cpu.cr0", "cpu.cr4", "cpu.eflags"}
    segments = {f"cpu.{name}" for name in ("cs", "ds", "es", "ss")}
    assert set().union(*(clauses for _, clauses in BROKEN.values())) | elsewhere | segments == set(CLAUSES)
