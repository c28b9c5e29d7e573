"""The machines: where the firmware keeps its data, and where RAM, ROM and what is reserved lie, in literal numbers."""

import itertools

import pytest
from pvhboot.shim import machines
from pvhboot.shim.abi.chipset import I440FX, ICH9
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE, FIRMWARES, GIB, KIB, MACHINES, MIB, MICROVM, MICROVM_ACPI, PC, Q35, UNIVERSAL

ALL = pytest.mark.parametrize("spec", FIRMWARES.values(), ids=FIRMWARES)


def test_the_machines_and_the_firmwares():
    assert list(MACHINES) == ["bare", "microvm", "microvm-acpi", "pc", "q35"]
    assert list(FIRMWARES) == [*MACHINES, "universal"]
    assert all(spec.name == name for name, spec in FIRMWARES.items())
    assert UNIVERSAL.detects == (PC, Q35, MICROVM_ACPI)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GDT_ENTRIES", 4),
        ("MAX_MODULES", {"params": 512, "fw_cfg": 1}),
        ("FW_CFG_DIR_CHUNK", 40),
        ("DIRECTORY_BYTES", 2564),
        ("FW_CFG_MAX_E820", 122),
        ("CMDLINE_MAX", 0x8000),
        ("LOADER_MAX_BYTES", 0x4000),
        ("ALLOCATED_MAX", 32),
        ("ROM_GRANULE", 0x10000),
        ("ROM_MAX", 0x1000000),
        ("PARAMS_PADDR", 0xFFFF0000),
        ("CODE_ORIGIN", 0xFFFF8000),
        ("MP_STATIC_PADDR", 0xFFFFFF00),
    ],
)
def test_constant(name, value):
    assert getattr(machines, name) == value


# The firmware's own data.

_LOW = {
    "gdt": ("firmware GDT", 0x1000, 0x1020),
    "stack": ("firmware stack", 0x2000, 0x3000),
    "start_info": ("start_info", 0x6000, 0x6038),
    "memmap": ("memory map", 0x7000, 0x7BD0),
}
_FW_CFG = {
    **_LOW,
    "modlist": ("module list", 0x6040, 0x6060),
    "strings": ("command line", 0x20000, 0x28000),
    "boot_params": ("boot_params", 0x4000, 0x5000),
    "setup_data": ("setup_data", 0x10000, 0x20000),
    "transfer": ("fw_cfg transfer", 0x3000, 0x3A04),
}
_ACPI = {
    **_FW_CFG,
    "e820": ("etc/e820", 0x8000, 0x8988),
    "allocated": ("ACPI files", 0x9000, 0x9180),
    "script": ("table-loader", 0xA000, 0xE000),
}
_PC = {
    **_ACPI,
    "control": ("fw_cfg control", 0x1020, 0x106C),
    "upper": ("upper memory", 0xC0000, 0xF0000),
    "f_segment": ("F segment", 0xF0000, 0x100000),
}
_MP_TABLE = ("MP table", 0x9E000, 0xA0000)
LOW_MEMORY = {
    "bare": {**_LOW, "modlist": ("module list", 0x8000, 0xC000), "strings": ("command lines", 0x20000, 0x28000)},
    "microvm": {**_FW_CFG, "control": ("fw_cfg control", 0x1020, 0x1044), "mp_table": _MP_TABLE},
    "microvm-acpi": {**_ACPI, "control": ("fw_cfg control", 0x1020, 0x105C)},
    "pc": _PC,
    "q35": _PC,
    "universal": {**_PC, "control": ("fw_cfg control", 0x1020, 0x1070), "mp_table": _MP_TABLE},
}


@ALL
def test_low_memory(spec):
    there = {name: tuple(span) for name, span in spec.low._asdict().items() if span is not None}
    assert there == LOW_MEMORY[spec.name]
    assert sorted(map(tuple, spec.low.spans())) == sorted(there.values())


@ALL
def test_low_memory_is_disjoint_below_1_mib_and_not_at_0(spec):
    spans = sorted(spec.low.spans(), key=lambda span: span.start)
    assert all(0 < span.start < span.end <= 1 << 20 for span in spans)
    assert all(one.end <= other.start for one, other in itertools.pairwise(spans))


@ALL
def test_where_the_firmwares_data_end(spec):
    """But for what an operating system looks for at the end of base memory, or of the first MiB."""
    assert machines.firmware_end(spec) == 0x28000


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((False, False, False), "FW_CFG_WORD_PADDR ENTRY_POINTER KERNEL_ADDR_PADDR KERNEL_SIZE_PADDR LINUX_ENTRY"),
        ((True, False, False), "RSDP_PADDR ACPI_TOP ACPI_BOTTOM ACPI_FLOOR ACPI_POINTER ACPI_POINTER_HIGH"),
        ((False, True, False), "UPPER_END UPPER_START FSEG_END FSEG_START"),
        ((False, False, True), "MACHINE_POINTER"),
    ],
)
def test_control_words(parts, words):
    acpi, chipset, detects = parts
    first = machines.control_words(acpi=False, chipset=False, detects=False)
    these = machines.control_words(acpi=acpi, chipset=chipset, detects=detects)
    assert these[: len(first)] == first
    assert " ".join(these[len(first) :] or first) == words


# What else there is to a machine.

_OTHERS = {
    "chipset": None,
    "low_ram_max": 3 * GIB,
    "low_ram_whole": 3 * GIB,
    "low_rom_max": 128 * KIB,
    "ram_min": MIB,
    "ram_max": 1024 * GIB,
    "unclaimed": "ones",
    "rom_writable": False,
    "reset_ports": True,
    "acpi": True,
    "mp_table": True,
    "initrd_reserve": 160 * KIB,
    "source": "fw_cfg",
    "detects": (),
}
_MICROVM = {**_OTHERS, "rom_writable": True, "reset_ports": False, "initrd_reserve": 0}
SPECS = {
    "bare": {
        **_OTHERS,
        "qemu": "microvm,acpi=off",
        "source": "params",
        "low_rom_max": 0,
        "ram_min": 160 * KIB,
        "acpi": False,
        "mp_table": False,
        "initrd_reserve": 0,
    },
    "microvm": {**_MICROVM, "qemu": "microvm,acpi=off", "acpi": False},
    "microvm-acpi": {**_MICROVM, "qemu": "microvm,acpi=on", "mp_table": False},
    "pc": {**_OTHERS, "qemu": "pc", "chipset": I440FX, "low_ram_whole": 0xE0000000},
    "q35": {**_OTHERS, "qemu": "q35", "chipset": ICH9, "low_ram_max": 2 * GIB, "low_ram_whole": 0xB0000000},
}


@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_the_rest_of_a_machine(spec):
    rest = {name: value for name, value in spec._asdict().items() if name not in ("name", "low")}
    assert rest == SPECS[spec.name]


@pytest.mark.parametrize(
    ("spec", "has"), [(BARE, False), (MICROVM, False), (MICROVM_ACPI, False), (PC, True), (Q35, True), (UNIVERSAL, True)]
)
def test_who_has_a_chipset(spec, has):
    assert spec.has_chipset is has


def test_the_universal_firmware_takes_each_ram_that_one_of_its_machines_takes():
    assert (UNIVERSAL.ram_min, UNIVERSAL.ram_max) == (MIB, 1024 * GIB)
    assert (UNIVERSAL.acpi, UNIVERSAL.mp_table, UNIVERSAL.source, UNIVERSAL.chipset) == (True, True, "fw_cfg", None)


# RAM: QEMU hw/i386/microvm.c (microvm_memory_init), pc_piix.c (pc_init1) and pc_q35.c (pc_q35_init).

HIGH = 1 << 32
RAM = [
    (BARE, 0x10000000, None),
    (BARE, 0xC0000000, None),
    (BARE, 0xC0001000, 0xC0000000),
    (MICROVM, 0xC0000000, None),
    (MICROVM, 0xC0001000, 0xC0000000),
    (MICROVM_ACPI, 0xC0000000, None),
    (MICROVM_ACPI, 0xC0001000, 0xC0000000),
    (PC, 0xC0000000, None),
    (PC, 0xD0000000, None),  # 3.25 GiB: all of it below 4 GiB
    (PC, 0xDFFFF000, None),
    (PC, 0xE0000000, 0xC0000000),
    (PC, 0x140000000, 0xC0000000),
    (Q35, 0x80000000, None),
    (Q35, 0x80001000, None),
    (Q35, 0xAFFFF000, None),
    (Q35, 0xB0000000, 0x80000000),
    (Q35, 0xC0000000, 0x80000000),
    (Q35, 0x140000000, 0x80000000),
]


@pytest.mark.parametrize(("spec", "size", "parted"), RAM, ids=lambda value: getattr(value, "name", str(value)))
def test_ram_is_parted_around_the_hole(spec, size, parted):
    """`parted`: where the RAM below 4 GiB ends, if there is some above."""
    expected = [(0, size)] if parted is None else [(0, parted), (HIGH, HIGH + size - parted)]
    assert [span.bounds for span in machines.ram_spans(spec, size)] == expected


@pytest.mark.parametrize("spec", [PC, Q35], ids=lambda spec: spec.name)
@pytest.mark.parametrize("size", [16 * MIB, 0xAFFFF000, 0xB0000000, 0xDFFFF000, 0xE0000000, 6 * GIB])
def test_ram_lies_beside_what_is_reserved(spec, size):
    """ECAM, the APICs and the ROM."""
    spans = sorted(span.bounds for span in (*machines.ram_spans(spec, size), *machines.reserved_spans(spec, 0x1000000)[1:]))
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
    assert all(span.end <= 0xFEC00000 or span.start >= HIGH for span in machines.ram_spans(spec, size))


def test_rom_span():
    assert machines.rom_span(0x20000) == ("ROM", 0xFFFE0000, 0x100000000)


# What lies below 1 MiB, by the ROM's size.

LOW_ROM = {0x1000: 0xFF000, 0x10000: 0xF0000, 0x20000: 0xE0000, 0x21000: 0xE0000, 0x40000: 0xE0000, 0x1000000: 0xE0000}
OTHERS = [spec for spec in MACHINES.values() if spec is not BARE]


@pytest.mark.parametrize(("rom_size", "low"), LOW_ROM.items(), ids=hex)
@pytest.mark.parametrize("spec", OTHERS, ids=lambda spec: spec.name)
def test_the_end_of_the_rom_lies_below_1_mib_too(spec, rom_size, low):
    assert machines.low_rom_span(spec, rom_size) == ("low ROM", low, 0x100000)
    hole = ("video memory and ROMs", 0xA0000, 0x100000) if spec in (PC, Q35) else ("low ROM", low, 0x100000)
    assert machines.low_hole(spec, rom_size) == hole
    ram = machines.visible_ram(spec, 0x10000000, rom_size)
    assert [tuple(span) for span in ram] == [("low RAM", 0, hole[1]), ("RAM", 0x100000, 0x10000000)]


@pytest.mark.parametrize(
    ("spec", "low", "first_end"), [(MICROVM, 0xE0000, 0xC0000000), (PC, 0xA0000, 0xC0000000), (Q35, 0xA0000, 0x80000000)]
)
def test_visible_ram_of_5_gib(spec, low, first_end):
    ram = [span.bounds for span in machines.visible_ram(spec, 0x140000000, 0x20000)]
    assert ram == [(0, low), (0x100000, first_end), (HIGH, HIGH + 0x140000000 - first_end)]


def test_bare_has_no_hole():
    assert machines.low_rom_span(BARE, 0x20000) is None
    assert machines.low_hole(BARE, 0x20000) is None
    assert machines.visible_ram(BARE, 0xC0001000, 0x20000) == machines.ram_spans(BARE, 0xC0001000)


ECAM = ("ECAM", 0xB0000000, 0xC0000000)


@pytest.mark.parametrize(
    ("spec", "rom_size", "spans"),
    [
        (BARE, 0x20000, [("ROM", 0xFFFE0000, HIGH)]),
        (MICROVM, 0x10000, [("low ROM", 0xF0000, 0x100000), ("ROM", 0xFFFF0000, HIGH)]),
        (MICROVM_ACPI, 0x40000, [("low ROM", 0xE0000, 0x100000), ("ROM", 0xFFFC0000, HIGH)]),
        (PC, 0x10000, [("low ROM", 0xF0000, 0x100000), ("ROM", 0xFFFF0000, HIGH)]),
        (Q35, 0x10000, [("low ROM", 0xF0000, 0x100000), ECAM, ("ROM", 0xFFFF0000, HIGH)]),
        (Q35, 0x1000000, [("low ROM", 0xE0000, 0x100000), ECAM, ("ROM", 0xFF000000, HIGH)]),
    ],
)
def test_reserved_spans(spec, rom_size, spans):
    assert [tuple(span) for span in machines.reserved_spans(spec, rom_size)] == spans


# By name.


@pytest.mark.parametrize(("find", "names"), [(machines.machine, MACHINES), (machines.firmware_machine, FIRMWARES)])
def test_by_name(find, names):
    assert [find(name) for name in names] == list(names.values())


def test_what_has_no_such_name():
    with pytest.raises(BootError, match=r"^no machine named 'vax'; there is: bare, microvm, microvm-acpi, pc, q35$"):
        machines.machine("vax")
    with pytest.raises(BootError, match=r"^no machine named 'universal'"):
        machines.machine("universal")
    with pytest.raises(BootError, match=r"^no firmware for 'vax'; there is: bare, microvm, microvm-acpi, pc, q35, universal$"):
        machines.firmware_machine("vax")
