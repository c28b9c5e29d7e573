"""Every instruction of every firmware is executed and each of its branches goes both ways, in runs that are judged. Of what
cannot be, it says here why."""

import re
import struct
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from happenings import answer_cpuid, happening
from hostile import KERNEL, KERNEL_BYTES, SPECS, Host, Judge, straight
from pvhboot.emu.board import Board
from pvhboot.emu.check import VIOLATED, check
from pvhboot.emu.coverage import Coverage
from pvhboot.emu.covered import covered_files, total
from pvhboot.emu.engines.base import Limits
from pvhboot.emu.engines.unicorn import UnicornEngine
from pvhboot.emu.reasons import HALT
from pvhboot.emu.report.coverage import missed
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.modules import Module
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import params
from pvhboot.shim.abi.firmware import panic_message
from pvhboot.shim.abi.x86 import HLT
from pvhboot.shim.image import panics_of
from pvhboot.shim.machines import BARE, FIRMWARES, MACHINES, MIB, PARAMS_PADDR, UNIVERSAL
from pvhboot.shim.stock import default_blob
from tiny import kernel_image
from ways import WAYS

FW_CFG_FIRMWARES = [*SPECS, UNIVERSAL.name]


class Unreachable(NamedTuple):
    """What no run of these firmwares can do: `source`, behind the instruction `before`, is not executed, or goes one way."""

    firmwares: tuple[str, ...]
    file: str
    before: str
    source: str
    missing: str
    why: str


UNREACHABLE = (
    Unreachable(
        ("microvm",), "cpus.s", "cmp edx, 1", "jbe cpus_found", "never taken", "with one processor mptable.s asks for none here"
    ),
)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    path = tmp_path_factory.mktemp("ways") / "kernel"
    path.write_bytes(kernel_image(HLT.ljust(KERNEL_BYTES, b"\x90"), KERNEL, bits=64))
    with Kernel.open(str(path)) as opened:
        yield opened


@pytest.fixture(scope="module")
def initrd(tmp_path_factory):
    path = tmp_path_factory.mktemp("ways") / "initrd"
    path.write_bytes(b"initrd" * 100)
    return str(path)


@pytest.fixture(scope="module")
def judge(kernel, initrd):
    return Judge(kernel, initrd, {name: default_blob(FIRMWARES[name]).data for name in FW_CFG_FIRMWARES})


def require_all_covered(coverage, name):
    """All of this firmware but what is unreachable; and that is. The docs have the figures."""
    files = covered_files(coverage)
    missing = set()
    for file in files:
        for before, each in pairwise([None, *file.instructions]):
            if what := missed(each):
                missing.add((file.name, before.text if before else "", each.text, what))
    assert missing == {tuple(place[1:5]) for place in UNREACHABLE if name in place.firmwares}
    figures = total(files)
    docs = (Path(__file__).parents[2] / "docs/coverage.md").read_text()
    (row,) = re.findall(rf"^\| (?:[\w-]+, )*{name}(?:, [\w-]+)* \| (.*) \|$", docs, re.MULTILINE)
    assert row == f"{figures.executed} of {figures.instructions} | {figures.gone} of {figures.ways}"


@pytest.mark.parametrize("name", FW_CFG_FIRMWARES)
def test_a_firmware_that_asks_fw_cfg_is_covered(judge, kernel, name):
    blob = default_blob(FIRMWARES[name])
    coverage = Coverage()
    rom = coverage.of(blob)
    universal = name == UNIVERSAL.name
    machines = SPECS if universal else (name,)
    for machine in machines:
        honest = Host(machine, universal, True, "pvh", {}, {}, {}, {}, {}, 0, None, "", 0)
        for about, way in WAYS.items():
            if machine in way.machines:
                run = happening(way.happens, name, blob.symbols, rom.start) if way.happens else straight
                assert (about, judge.require(honest._replace(**way.host), run, [rom])) == (about, way.end)
    require_boot_without_mtrrs(make_plan(MACHINES[machines[0]], blob.data, kernel, memory=64 * MIB), rom)
    require_all_covered(coverage, name)


def require_boot_without_mtrrs(plan, rom):
    """A processor that has no MTRRs is not asked to use them."""
    board = Board(plan)
    with UnicornEngine().cpu(board, Limits()) as cpu, cpu.watch(rom.start(cpu, board)):
        answer_cpuid(cpu, ebx=0, edx=0)
        assert cpu.run_to({plan.entry})
        handoff = cpu.handoff()
    assert handoff.mtrr_def_type == 0
    wrong = [found for found in check(handoff._replace(has_mtrr=False), plan) if found.status == VIOLATED]
    assert not wrong


# The parameter block of `bare`.

_AT = {name: field.offset for name, field in params.PARAMS_HEADER.fields.items()}
_HEADER = params.PARAMS_HEADER.size


def put(**fields):
    """The header's fields have these values."""

    def change(block):
        for name, value in fields.items():
            struct.pack_into("<I", block, _AT[name], value)

    return change


def unterminated(block):
    (size,) = struct.unpack_from("<I", block, _AT["size"])
    block[size - 1] = ord("x")


def string_outside(block):
    """Of the first module: just behind the strings."""
    entries, strings = (struct.unpack_from("<I", block, _AT[name])[0] for name in ("e820_entries", "strings_size"))
    struct.pack_into("<I", block, _HEADER + entries * 20 + 16, strings)


def too_large(block):
    """The parts add up to the size, and that is more than there is room for."""
    entries, modules = (struct.unpack_from("<I", block, _AT[name])[0] for name in ("e820_entries", "modules"))
    strings = params.PARAMS_MAX_SIZE
    put(strings_size=strings, size=_HEADER + 20 * entries + params.PARAMS_MODULE.size * modules + strings)(block)


BARE_WAYS = {
    "good": (put(), ""),
    "no magic": (put(magic=0), "PARAMS_MAGIC"),
    "a version unknown": (put(version=0), "PARAMS_VERSION"),
    "empty": (put(size=0), "NO_PARAMS"),
    "no entry": (put(entry=0), "NO_ENTRY"),
    "no memory map": (put(e820_entries=0), "E820_COUNT"),
    "too many modules": (put(modules=params.PARAMS_MAX_MODULES + 1), "MODULE_COUNT"),
    "strings too long": (put(strings_size=params.PARAMS_MAX_SIZE + 1), "PARAMS_SIZE"),
    "a size that is wrong": (put(size=1), "PARAMS_SIZE"),
    "too large": (too_large, "PARAMS_SIZE"),
    "no terminator": (unterminated, "STRING_END"),
    "a string outside": (string_outside, "STRING_OFFSET"),
}


def test_the_firmware_of_bare_is_covered(kernel, initrd):
    blob = default_blob(BARE)
    coverage = Coverage()
    rom = coverage.of(blob)
    panics = {panic.name: panic for panic in panics_of(BARE)}
    for modules, cmdline in (([], None), ([Module(initrd, "one"), Module(initrd)], "a line"), ([Module(initrd)], None)):
        plan = make_plan(BARE, blob.data, kernel, memory=64 * MIB, modules=modules, cmdline=cmdline)
        for about, (change, name) in BARE_WAYS.items():
            if (modules and cmdline) or about == "good":
                data = bytearray(plan.rom)
                at = PARAMS_PADDR - blob.paddr
                block = bytearray(data[at : at + params.PARAMS_MAX_SIZE])
                change(block)
                data[at : at + params.PARAMS_MAX_SIZE] = block
                board = Board(plan._replace(rom=bytes(data)))
                with UnicornEngine().cpu(board, Limits(instructions=100_000)) as cpu, cpu.watch(rom.start(cpu, board)):
                    assert (about, cpu.run_to({plan.entry})) == (about, not name)
                    if name:
                        cpu.stop = None  # a non-maskable interrupt
                        assert not cpu.run_to({plan.entry})
                        assert cpu.stop.reason == HALT
                    else:
                        assert not [found for found in check(cpu.handoff(), plan) if found.status == VIOLATED]
                assert board.debug_console.decode() == (panic_message(panics[name]) + "\n" if name else ""), about
    require_boot_without_mtrrs(plan, rom)
    require_all_covered(coverage, BARE.name)
