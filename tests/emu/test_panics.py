"""A parameter block that is wrong ends in a named panic, on every engine: never in a wild write or an endless loop."""

import struct

import pytest
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.reasons import HALT, HANDOFF
from pvhboot.emu.session import boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import Module, make_plan
from pvhboot.shim.abi.firmware import PANICS, panic_message
from pvhboot.shim.machines import BARE, MIB
from pvhboot.shim.stock import default_blob, default_guest

SIZE, STRINGS = 8, 24


def put(offset, *values):
    """Overwrites u32 fields of the header."""

    def change(block):
        struct.pack_into(f"<{len(values)}I", block, offset, *values)

    return change


def change_end(block):
    (size,) = struct.unpack_from("<I", block, SIZE)
    block[size - 1] = ord("x")


def strings_beyond(block):
    """The first module's string lies at the end of the strings, one too far."""
    (entries,), (strings,) = struct.unpack_from("<I", block, 16), struct.unpack_from("<I", block, STRINGS)
    struct.pack_into("<I", block, 32 + entries * 20 + 16, strings)


WRONG = {
    "empty": (put(SIZE, 0), "NO_PARAMS"),
    "magic": (put(0, 0x42485651), "PARAMS_MAGIC"),
    "version-0": (put(4, 0), "PARAMS_VERSION"),
    "version-2": (put(4, 2), "PARAMS_VERSION"),
    "size-one-more": (put(SIZE, 153), "PARAMS_SIZE"),
    "size-too-large": (put(SIZE, 0xFFFFFFFF), "PARAMS_SIZE"),
    "entry-0": (put(12, 0), "NO_ENTRY"),
    "e820-0": (put(16, 0), "E820_COUNT"),
    "e820-127": (put(16, 127), "E820_COUNT"),
    "e820-wraps-a-product": (put(16, 0xCCCCCCCD), "E820_COUNT"),
    "modules-121": (put(20, 121), "MODULE_COUNT"),
    "modules-most": (put(20, 0xFFFFFFFF), "MODULE_COUNT"),
    "strings-most": (put(STRINGS, 0xFFFFFFFF), "PARAMS_SIZE"),
    "strings-and-size-too-large": (put(STRINGS, 0x8000), "PARAMS_SIZE"),
    "no-terminator": (change_end, "STRING_END"),
    "string-outside": (strings_beyond, "STRING_OFFSET"),
}


@pytest.mark.parametrize(("change", "name"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_block_is_a_named_panic(engine_name, tmp_path, change, name):
    (tmp_path / "initrd").write_bytes(b"module")
    blob = default_blob(BARE)
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        modules = [Module(str(tmp_path / "initrd"), "its line")]
        plan = make_plan(BARE, blob.data, kernel, memory=32 * MIB, modules=modules, cmdline="a line")
        rom = bytearray(plan.rom)
        block = memoryview(rom)
        change(block)
        block.release()
        outcome = boot(plan._replace(rom=bytes(rom)), blob, get_engine(engine_name), Until(HANDOFF), Limits(seconds=20.0))
    panic = next(panic for panic in PANICS if panic.name == name)
    assert outcome.run.stop.reason == HALT
    assert outcome.post_codes == (panic.code,)
    assert outcome.debug_console.decode() == panic_message(panic) + "\n"
    assert outcome.handoff is None
    place = blob.locate(outcome.run.stop.rip)
    assert place is not None
    assert place.symbol == "panic_halt"


def test_every_panic_is_reached_by_a_test():
    assert {name for _, name in WRONG.values()} | {"STAGE_END"} == {panic.name for panic in PANICS}
