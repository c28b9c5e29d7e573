"""The stand-in for FreeBSD: its rules are met by a boot that keeps to them, and each way to break one has its reason."""

import re

import pytest
from guest_report import parse_report
from guest_runs import CPIO, MEMORY, plan_for, run_spoilt, write
from pvhboot.loader.modules import FREEBSD, LINUX, Module
from pvhboot.shim.abi import freebsd, pvh
from pvhboot.shim.guest_layout import (
    FREEBSD_FREE_BYTES,
    GUEST_FREEBSD_HALT,
)
from pvhboot.shim.image import asm_source
from pvhboot.shim.machines import GIB
from pvhboot.shim.stock import build_guest


def record(kind, data):
    return freebsd.MODINFO.pack(freebsd.Modinfo(kind, len(data))) + data + bytes(-len(data) % freebsd.MODINFO_ALIGN)


def metadata(kind=b"elf kernel\0"):
    """What FreeBSD's loader leaves, as far as the kernel looks for it."""
    return record(freebsd.MODINFO_NAME, b"/boot/kernel/kernel\0") + record(freebsd.MODINFO_TYPE, kind) + bytes(8)


def behind_header(data, at=0x1000, flags=freebsd.XENHEADER_HAS_MODULEP_OFFSET):
    return freebsd.XEN_HEADER.pack(freebsd.XenHeader(flags, at)).ljust(at, b"\0") + data


@pytest.fixture
def freebsd_plan(tmp_path):
    def plan(*modules, rules=FREEBSD, memory=MEMORY):
        listed = []
        for number, (data, cmdline) in enumerate(modules):
            path = tmp_path / f"module{number}"
            path.write_bytes(data)
            listed.append(Module(str(path), cmdline))
        return plan_for(build_guest("freebsd"), memory, modules=listed, guest=rules)

    return plan


# The modules, how many pages they take, and where in module 0 the metadata is.
FREEBSD_BOOTS = {
    "no-module": ((), 0, None),
    "metadata": ([(metadata(), "kernel")], 1, 0),
    "metadata-of-an-older-loader": ([(metadata(b"elf64 kernel\0"), "kernel")], 1, 0),
    "metadata-behind-a-header": ([(behind_header(metadata()), "header")], 2, 0x1000),
    "and-more": ([(metadata(), "kernel"), (b"second" * 1000, "another"), (b"third", "a third")], 4, 0),
}


@pytest.mark.parametrize("case", FREEBSD_BOOTS)
def test_freebsds_rules_are_met(case, freebsd_plan, engine_name):
    modules, pages, where = FREEBSD_BOOTS[case]
    plan = freebsd_plan(*modules)
    value, console = run_spoilt(plan, engine_name)
    report = parse_report(console)
    end = 0x400000  # of the kernel
    metadata_at = " none" if where is None else f"={plan.modules[0].paddr + where:#010x}"
    assert report.freebsd == [f"physfree={end + pages * 0x1000:#010x} is RAM", f"metadata{metadata_at}"]
    assert [(paddr, size) for paddr, size, _ in report.modules] == [(m.paddr, m.payload.size) for m in plan.modules]
    assert [line for *_, line in report.modules] == [f'"{cmdline}"' for _, cmdline in modules]
    assert value == 0


def field(name):
    return pvh.HVM_START_INFO.fields[name].offset


def put(memory, at, value, size=8):
    write(memory, at, value.to_bytes(size, "little"))


def get(memory, at, size=8):
    return int.from_bytes(memory.read(at, size), "little")


def module_field(name):
    def change(value):
        def at_handoff(memory, info):
            put(memory, get(memory, info + field("modlist_paddr")) + pvh.HVM_MODLIST_ENTRY.fields[name].offset, value)

        return at_handoff

    return change


def info_field(name, value, size=8):
    return lambda memory, info: put(memory, info + field(name), value, size)


ONE = [(metadata(), "kernel")]
# The modules, by whose rules they are placed, what is changed at the entry, and the reason that is given.
FREEBSD_HALTS = {
    "magic": ((), FREEBSD, info_field("magic", 1, 4), "start_info has another magic"),
    "version-0": ((), FREEBSD, info_field("version", 0, 4), "no memory map in the first GiB"),
    "no-memory-map": ((), FREEBSD, info_field("memmap_paddr", 0), "no memory map in the first GiB"),
    "memory-map-above-1g": ((), FREEBSD, info_field("memmap_paddr", GIB), "no memory map in the first GiB"),
    "memory-map-above-4g": ((), FREEBSD, info_field("memmap_paddr", 1 << 32 | 0x7000), "no memory map in the first GiB"),
    "memory-map-without-end": ((), FREEBSD, info_field("memmap_entries", 0x80000000, 4), "no memory map in the first GiB"),
    "modlist-without-modules": ((), FREEBSD, info_field("modlist_paddr", 0x6040), "modlist_paddr is set, nr_modules is 0"),
    "modlist-above-1g": (ONE, FREEBSD, info_field("modlist_paddr", GIB), "the module list is not in the first GiB"),
    "module-above-1g": (ONE, FREEBSD, module_field("paddr")(GIB), "a module is not in the first GiB"),
    "module-of-4g": (ONE, FREEBSD, module_field("size")(1 << 32), "a module is not in the first GiB"),
    "modules-at-the-top": (ONE, LINUX, None, "no RAM behind kernel, start_info, memory map and modules"),
    "reserved-behind-the-kernel": (
        (),
        FREEBSD,
        lambda memory, info: put(memory, get(memory, info + field("memmap_paddr")) + 8, 0x400000 + FREEBSD_FREE_BYTES - 1),
        "no RAM behind kernel, start_info, memory map and modules",
    ),
    "cmdline-in-the-way": (
        (),
        FREEBSD,
        info_field("cmdline_paddr", 0x400000 + FREEBSD_FREE_BYTES - 1),
        "a command line or the module list lies in the first free pages",
    ),
    "null-cmdline": (ONE, FREEBSD, module_field("cmdline_paddr")(0), "module 0 has no command line"),
    "cmdline-above-1g": (
        ONE,
        FREEBSD,
        module_field("cmdline_paddr")(GIB),
        "the command line of module 0 is not in the first GiB",
    ),
    "an-initrd": ([(CPIO, "initrd")], FREEBSD, None, "module 0 is no metadata of FreeBSD's loader"),
    "no-kernel-in-it": ([(metadata(b"elf module\0"), "x")], FREEBSD, None, "module 0 is no metadata of FreeBSD's loader"),
    "records-that-run-out": ([(metadata()[:16], "x")], FREEBSD, None, "module 0 is no metadata of FreeBSD's loader"),
    "header-without-offset": (
        [(behind_header(metadata(), flags=0), "header")],
        FREEBSD,
        None,
        "module 0 is a header that does not say where the metadata is",
    ),
    "header-beyond-the-module": (
        [(behind_header(b"", 0x2000), "header")],
        FREEBSD,
        None,
        "module 0 is a header that does not say where the metadata is",
    ),
    "metadata-where-a-header-should-be": (
        [(metadata(), "header")],
        FREEBSD,
        None,
        "module 0 is a header that does not say where the metadata is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FREEBSD_HALTS)
def test_the_stand_in_halts_where_freebsd_would(case, freebsd_plan, engine_name):
    modules, rules, change, reason = FREEBSD_HALTS[case]
    value, console = run_spoilt(freebsd_plan(*modules, rules=rules), engine_name, at_handoff=change)
    assert value == GUEST_FREEBSD_HALT
    assert console.decode().splitlines()[-1] == f"freebsd halt: {reason}"


def test_every_reason_to_halt_is_tried():
    """But for those that take a start_info above 1 GiB, or memory that forgets."""
    reasons = set(re.findall(r'^halt_\w+:\n    \.asciz "(.*)"$', asm_source("guest_freebsd.s"), re.MULTILINE))
    untried = {"start_info is not in the first GiB", "the first free pages do not hold what is stored"}
    assert reasons - {reason for *_, reason in FREEBSD_HALTS.values()} == untried
