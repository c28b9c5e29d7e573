"""Whose memory is whose: what plan and manifest say of it, and what of it the CPU sees."""

import pytest
from pvhboot.emu.owners import Owners, Right
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.memory import ShadowPart
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE, MACHINES, MIB, MICROVM, MICROVM_ACPI, Q35, rom_span
from pvhboot.shim.stage import make_stage
from pvhboot.shim.stock import default_blob, default_guest
from sanitizing import FREE, INITRD, KERNEL, RESERVED, foreign


def owners(spec, *, blob=None, reserved=()):
    """The owners of a boot with an initrd in 64 MiB, and what they were made of."""
    blob = blob or default_blob(spec)
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        plan = make_plan(spec, blob.data, kernel, memory=64 * MIB, modules=[Module(str(INITRD))], reserved=reserved)
        memory = plan.memory()
    return Owners(plan, blob, memory), plan, memory


@pytest.mark.parametrize("known", [True, False], ids=["own", "foreign"])
@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_each_byte_of_ram_and_rom_has_one_owner(spec, known):
    blob = default_blob(spec)
    found, _, memory = owners(spec, blob=blob if known else foreign(blob), reserved=[RESERVED])
    for region in memory.regions:
        parts = list(found.parts(*region.span.bounds[:1], region.span.size))
        assert sum(count for _, _, count in parts) == region.span.size
        assert all(area.start <= at and at + count <= area.end for area, at, count in parts)
    assert found.find(64 * MIB) is None


def test_the_firmware_writes_its_own_spans_and_nothing_else_on_bare():
    found, plan, _ = owners(BARE, reserved=[RESERVED])
    for span in BARE.low.spans():
        assert found.find(span.start).stores is found.find(span.end - 1).stores is Right.ANY
    for paddr in (0, FREE, KERNEL, plan.modules[0].paddr, RESERVED.start, rom_span(0x10000).start):
        assert found.find(paddr).stores is Right.NONE
        assert not found.find(paddr).transfers


def test_devices_write_what_is_read_from_them_only():
    found, _, _ = owners(MICROVM)
    low = MICROVM.low
    assert all(found.find(span.start).transfers for span in (low.control, low.transfer, low.modlist, low.strings))
    assert not any(found.find(span.start).transfers for span in (low.gdt, low.stack, low.start_info, low.memmap))


def test_where_tables_go_a_store_may_mend_what_a_device_has_put_there():
    found, _, _ = owners(MICROVM_ACPI)
    assert (found.find(0x300000).stores, found.find(0x300000).transfers) == (Right.MEND, True)
    assert (found.find(FREE).stores, found.find(FREE).transfers) == (Right.NONE, False)
    assert owners(MICROVM)[0].find(0x300000).stores is Right.NONE


def test_another_firmware_has_what_is_free():
    found, plan, _ = owners(MICROVM, blob=foreign(default_blob(MICROVM)))
    assert (found.find(FREE).stores, found.find(FREE).transfers, found.find(FREE).pushes) == (Right.ANY, True, True)
    assert (found.find(0).stores, found.find(0).transfers) == (Right.ANY, False)
    assert found.find(KERNEL).stores is Right.NONE
    assert found.find(plan.modules[0].paddr).stores is Right.ANY  # until it is there


def test_the_memory_of_a_stage_is_the_firmwares():
    stage = make_stage("before-handoff", "mine.s", "# Clobbers: memory 0x50000-0x50010\n    ret\n")
    found, _, _ = owners(BARE, blob=build(BARE, [stage]))
    area = found.find(0x5000F)
    assert (area.name, *area.bounds, area.stores) == ("memory of mine.s", 0x50000, 0x50010, Right.ANY)
    assert found.find(0x50010).stores is Right.NONE


def test_the_areas_follow_what_the_chipset_shows():
    found, _, memory = owners(Q35)
    upper = Q35.low.upper
    assert found.find(upper.start).rom
    memory.show_shadow([ShadowPart(upper.start, upper.start + 0x4000, False)])
    assert (found.find(upper.start).name, found.find(upper.start).stores) == (upper.name, Right.ANY)
    assert found.find(upper.start + 0x4000).rom
    memory.show_shadow([ShadowPart(upper.start, upper.start + 0x4000, True)])
    assert found.find(upper.start).stores is Right.NONE
    assert not found.find(upper.start).rom  # it holds what was stored there before


def test_bytes_that_several_own_come_in_parts():
    found, _, _ = owners(BARE)
    parts = [(area.name, at, count) for area, at, count in found.parts(BARE.low.memmap.end - 3, 8)]
    assert parts == [("memory map", BARE.low.memmap.end - 3, 3), ("free RAM", BARE.low.memmap.end, 5)]
    assert [(area.name, count) for area, _, count in found.parts(64 * MIB - 2, 4)] == [("free RAM", 2)]


def test_what_ends_in_front():
    found, _, _ = owners(BARE)
    assert found.before(BARE.low.memmap.end + 5).name == "memory map"
    assert found.before(0) is None
