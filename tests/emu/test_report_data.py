"""The data of a page say what the boot did, to the last register and byte."""

import pytest
from pvhboot.emu.clauses import CLAUSES as CHECKED
from pvhboot.emu.effects import EFFECT_KINDS
from pvhboot.emu.engines.base import GENERAL
from pvhboot.emu.inputs import read_firmware
from pvhboot.emu.lab.exercises import find
from pvhboot.emu.page.columns import plain
from pvhboot.emu.page.findings import CLAUSES
from pvhboot.shim.abi import pvh
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE, MICROVM, MICROVM_ACPI, PC, Q35
from pvhboot.shim.stage import make_stage
from reports import number, report, state_at

MACHINES = {spec.name: spec for spec in (BARE, MICROVM, MICROVM_ACPI, PC, Q35)}


@pytest.fixture(scope="module")
def microvm():
    return report(MICROVM)


@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_the_steps_lead_to_the_registers_of_the_handoff(engine_name, spec):
    told, data = report(spec, engine=engine_name)
    handoff = told.outcome.handoff
    state = state_at(data, data["handoff"])
    compared = (*GENERAL, "eflags", "cr0", "cr3", "cr4", "efer", "gdtr_base", "gdtr_limit")
    assert {name: state[name] for name in compared} == {name: handoff.registers[name] for name in compared}
    for name, segment in handoff.segments.items():
        assert (state[name], state[f"{name}_base"], state[f"{name}_limit"]) == segment[:3]
    assert data["sites"][data["steps"][data["handoff"]]][0] == told.outcome.plan.entry
    assert data["ok"] is True


def test_every_step_is_the_record_of_the_trace(microvm):
    told, data = microvm
    records = told.recorded.records
    assert len(data["steps"]) == len(records)
    for index, (site, record) in enumerate(zip(data["steps"], records, strict=True)):
        address, bits, code, text, _, _, _, segment, offset = data["sites"][site]
        assert (address, bits, code, text) == (record.address, record.bits, record.code.hex(), record.text)
        assert (segment, offset) == ((record.cs, record.ip) if record.bits == 16 else (None, None))
        assert data["times"].get(str(index), 1) == record.times
        assert state_at(data, index + 1) == state_at(data, index) | dict(record.changes)


def test_every_effect_is_that_of_the_trace(microvm):
    told, data = microvm
    columns = data["effects"]
    found = []
    for row, index in enumerate(columns["step"]):
        times, moved = columns["more"].get(str(row), (1, ""))
        value, device = columns["value"][row], columns["device"][row]
        kind, name = data["effect_kinds"][columns["kind"][row]], "" if device < 0 else data["devices"][device][0]
        value = None if value is None else number(value)
        found.append((index, kind, number(columns["at"][row]), columns["size"][row], value, name, times, moved))
    wanted = [(index, *effect) for index, record in enumerate(told.recorded.records) for effect in record.effects]
    assert found == wanted
    assert data["effect_kinds"] == list(EFFECT_KINDS)


def test_the_structures_are_those_of_the_handoff(tmp_path, engine_name):
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"module" * 100)
    told, data = report(MICROVM, engine=engine_name, initrd=initrd)
    tables, ebx = told.outcome.tables, told.outcome.handoff.registers["ebx"]
    info = tables.start_info
    found = {name: (start, end, bytes.fromhex(content)) for name, start, end, _, content, _ in data["memory"]["structures"]}
    wanted = {
        "start_info": (ebx, pvh.HVM_START_INFO.pack(info)),
        "memory map": (info.memmap_paddr, b"".join(map(pvh.HVM_MEMMAP_ENTRY.pack, tables.memmap))),
        "module list": (info.modlist_paddr, b"".join(map(pvh.HVM_MODLIST_ENTRY.pack, tables.modules))),
        "command line": (info.cmdline_paddr, b"hello\0"),
    }
    gdt = found.pop("GDT")
    assert found == {name: (start, start + len(content), content) for name, (start, content) in wanted.items()}
    assert gdt[0] == told.outcome.handoff.registers["gdtr_base"]
    assert len(gdt[2]) == told.outcome.handoff.registers["gdtr_limit"] + 1
    assert data["memory"]["memmap"] == [[e.addr, e.end, e.type, pvh.MEMMAP_TYPE_NAMES[e.type]] for e in tables.memmap]


@pytest.mark.parametrize("spec", [MICROVM, MICROVM_ACPI], ids=lambda spec: spec.name)
def test_stores_and_dma_fill_the_structures(tmp_path, spec):
    """As the page draws memory: nothing but what the steps say. With ACPI tables entries are moved from the last one down."""
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"module" * 100)
    data = report(spec, initrd=initrd).data
    memory: dict[int, int] = {}
    columns = data["effects"]
    for row, index in enumerate(columns["step"]):
        kind, at, value = data["effect_kinds"][columns["kind"][row]], columns["at"][row], columns["value"][row]
        times, moved = columns["more"].get(str(row), (1, ""))
        if index >= data["handoff"] or kind not in ("store", "dma") or ":" in moved:
            continue
        written = number(value).to_bytes(columns["size"][row], "little") if value is not None else bytes.fromhex(moved)
        assert len(written) == columns["size"][row] * times
        memory |= dict(enumerate(written, at))
    for name, start, end, _, content, _ in data["memory"]["structures"]:
        if name != "GDT":  # in it a bit is set by ltr itself
            assert bytes(memory[at] for at in range(start, end)).hex() == content, name


def held(data, name, step):
    """What the fields of a structure held behind a step: values, meanings, and the last step that has stored to each."""
    found = {}
    for structure, versions in zip(data["memory"]["structures"], data["memory"]["written"], strict=True):
        if structure[0] == name:
            for at, field, value, meaning in versions:
                if at <= step:
                    found[structure[5][field][2]] = (value, meaning, at)
    return found


@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_in_the_end_each_field_holds_what_the_kernel_finds(spec):
    data = report(spec).data
    for name, _, _, _, _, fields in data["memory"]["structures"]:
        found = held(data, name, data["handoff"])
        wanted = {field: (value, meaning) for _, _, field, value, meaning in fields if field in found}
        assert {field: told[:2] for field, told in found.items()} == wanted, name
    assert len(held(data, "start_info", data["handoff"])) == len(pvh.HVM_START_INFO.fields)


def test_on_the_way_a_field_is_told_as_in_the_end(broken):
    """An entry that was moved up by `rep movsd` downwards, and the one that its place is filled with, field by field."""
    data = broken("claimed-twice")
    steps = [at for at, field, *_ in data["memory"]["written"][place_of(data, "memory map")] if field == 3]
    assert held(data, "memory map", steps[0])["entry 3"] == ("0xffff0000, 0x10000 bytes", "reserved", steps[0])
    final = held(data, "memory map", steps[-1])
    assert final["entry 3"] == ("0x3fff000, 0x1000 bytes", "ACPI", steps[-1])
    assert final["entry 4"][:2] == ("0xffff0000, 0x10000 bytes", "reserved")
    assert final["entry 4"][2] < steps[-1]


def place_of(data, name):
    return [structure[0] for structure in data["memory"]["structures"]].index(name)


def test_a_field_that_is_stored_in_parts_is_told_so(microvm):
    data = microvm.data
    versions = data["memory"]["written"][place_of(data, "start_info")]
    fields = [field[2] for field in data["memory"]["structures"][place_of(data, "start_info")][5]]
    told = [value for _, field, value, _ in versions if fields[field] == "memmap_paddr"]
    assert told == ["written in part", hex(microvm.told.outcome.tables.start_info.memmap_paddr)]


def test_the_fields_of_a_structure_cover_its_bytes(microvm):
    for name, start, end, _, content, lines in microvm.data["memory"]["structures"]:
        at = 0
        for offset, size, _, _, _ in lines:
            assert offset == at, name
            at += size
        assert at == end - start == len(content) // 2


def test_a_gdt_is_as_it_was_when_it_was_loaded(microvm):
    data = microvm.data
    first, *_, last = data["gdts"]
    assert first[1] == microvm.told.outcome.blob.symbols["rom_gdt"]
    assert last[1] == MICROVM.low.gdt.start
    assert [entry[3] for entry in data["segment_loads"] if entry[1] == "cs"] == ["00cf9b000000ffff"]
    (tss,) = [entry for entry in data["segment_loads"] if entry[1] == "tr"]
    assert tss[2] == "0008"
    fields = {name: meaning for _, _, name, _, meaning in data["descriptors"][tss[3]]}
    assert fields["type"] == "32-bit TSS, busy"
    for _, _, _, descriptors in data["gdts"]:
        assert set(descriptors) <= set(data["descriptors"])


def test_a_transfer_of_fw_cfg_is_told_in_words(engine_name):
    data = report(MICROVM, engine=engine_name).data
    told = set(data["sentences"])
    entry = report(MICROVM).told.outcome.plan.entry
    assert "asks whether there is DMA: its signature says so" in told
    assert any(words.startswith("reads 20 bytes of file etc/e820 to 0x") for words in told)
    assert any(
        words.startswith("reads 4 bytes of the kernel's entry to 0x") and words.endswith(f": {entry:#x}") for words in told
    )


def test_fw_cfg_by_port_is_told_in_words():
    told = set(report(MICROVM, dma=False).data["sentences"])
    assert {
        "selects the kernel's entry",
        "reads bytes 0 to 3 of the kernel's entry",
        "reads bytes 0 to 5 of the command line itself",
    } <= told


def test_registers_of_a_chipset_have_their_names():
    told = set(report(Q35).data["sentences"])
    assert {"chooses 00:1f.0, register 0x40 (PMBASE)", "writes 00:00.0, register 0x90 (PAM)"} <= told


def test_what_an_instruction_did_is_told_in_words(microvm):
    data = microvm.data
    told = [data["sentences"][number] for number in data["says"].values()]
    wanted = (
        "loads GDTR: base",
        "sets CR0.PE: protected mode",
        "loads CS from descriptor 2: base 0x0, limit 0xffffffff",
        "loads TR from descriptor 1",
        "writes IA32_MTRR_DEF_TYPE: 0x806 (MTRRs on",
    )
    for words in wanted:
        assert sum(words in sentence for sentence in told) >= 1, words


@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_the_phases_cover_the_boot_and_each_has_words(spec):
    data = report(spec).data
    phases = data["phases"]
    assert phases[0][0] == 0
    assert [first + count for first, *_, count in phases] == [first for first, *_ in phases[1:]] + [len(data["steps"])]
    assert phases[-1][:2] == [data["handoff"], "kernel"]
    assert len(phases) <= 20
    own = {name for name, _, _ in data["files"]}
    assert not [title for _, _, title, _, _ in phases if title in own]
    assert {"reset", "realmode", "flat32", "start_info", "handoff"} <= {identity for _, identity, *_ in phases}


def test_a_stage_is_a_phase_of_its_own():
    stage = make_stage("before-handoff", "mine.s", "# Clobbers: eax\n    mov eax, 1\n    ret\n")
    data = report(BARE, blob=build(BARE, [stage])).data
    assert [title for _, _, title, _, _ in data["phases"] if title == "mine.s"] == ["mine.s"]


def test_the_modes_are_those_on_the_way(microvm):
    words = [words for _, words in microvm.data["modes"]]
    assert words[0] == "real mode, CS based at 0xffff0000"
    assert words[-1] == "protected mode, 32-bit code, paging off"


def test_source_files_are_whole(microvm):
    data = microvm.data
    files = {name: (lines, whole) for name, lines, whole in data["files"]}
    for name in ("reset.s", "realmode.s", "handoff.s", "e820.s"):
        lines, whole = files[name]
        assert whole, name
        assert lines == [line.rstrip() for line in asm_source(name).splitlines()]
    names = list(files)
    site = data["sites"][data["steps"][0]]
    assert names[site[5]] == "reset.s"
    assert "jmp real_mode" in files["reset.s"][0][site[6] - 1]


def test_of_another_source_only_its_own_lines_are_shown():
    text = asm_source("flat32.s").replace("    cld\n", "    nop\n    cld\n")
    data = report(BARE, blob=build(BARE, sources={"flat32.s": text})).data
    lines, whole = next((lines, whole) for name, lines, whole in data["files"] if name == "flat32.s")
    assert not whole
    assert "nop" in lines
    assert not [line for line in lines if line.startswith("#")]


def test_each_clause_has_words():
    assert set(CLAUSES) == set(CHECKED)


def leads_of(data):
    return {clause: leads for clause, _, _, _, leads in data["findings"]}


def test_a_finding_leads_to_the_step_that_did_it(microvm):
    data = microvm.data
    leads = leads_of(data)
    for clause, step in (("cpu.cr0", "mov cr0, eax"), ("cpu.tr", "ltr ax"), ("cpu.mtrr", "wrmsr")):
        assert data["sites"][data["steps"][leads[clause][0][0] - 1]][3] == step
    assert leads["cpu.cr0"][0][1] == "the last change of cr0, mov cr0, eax"
    assert leads["entry.eip"] == [[data["handoff"], "the jump to the kernel"]]
    assert set(leads) == set(CLAUSES)
    assert all(step for found in leads.values() for step, _ in found)


@pytest.fixture
def broken():
    """The data of a boot of the firmware of an exercise."""

    def made(name):
        exercise = find(name)
        return report(exercise.machine, blob=build(exercise.machine, sources=exercise.broken)).data

    return made


# Of the firmware of an exercise, by clauses that it violates, what the leads say.
LEADS = {
    "claimed-twice": {
        "memmap.count": ["the last store to start_info's memmap_entries"],
        "memmap.disjoint": [
            "begins what entry 2 holds, with its addr, size, type",
            "the last store to entry 2's reserved field",
            "begins what entry 3 holds, with its addr",
            "the last store to entry 3's type",
        ],
        "memmap.plan": ["begins what entry 3 holds, with its addr", "the last store to entry 3's type"],
    },
    "two-faced": {"cpu.ds": ["no step changes ds: it is as the reset left it"]},
    "phantom": {"memmap.entries": ["no step stores to entry 4"]},
}


@pytest.mark.parametrize("name", LEADS)
def test_a_finding_says_what_a_step_did_or_that_none_did_it(broken, name):
    data = broken(name)
    leads = leads_of(data)
    assert {clause: [words for _, words in leads[clause]] for clause in LEADS[name]} == LEADS[name]
    for clause in LEADS[name]:
        steps = [step for step, _ in leads[clause]]
        assert steps == sorted(steps)
        assert all(step or words.startswith("no step") for step, words in leads[clause])


def test_where_memory_was_overwritten_the_step_is_told():
    at = report(BARE).told.outcome.plan.segments[0].paddr
    text = asm_source("handoff.s")
    code = f"    mov byte ptr [{at:#x}], 0\n"
    blob = build(BARE, sources={"handoff.s": text.replace("    mov eax, SEL_TSS\n", f"{code}    mov eax, SEL_TSS\n")})
    data = report(BARE, blob=blob).data
    ((step, words),) = leads_of(data)["memory.payload"]
    assert words == f"a store to {at:#x}"
    assert data["sites"][data["steps"][step - 1]][3] == f"mov byte ptr [{at:#x}], 0"


def test_what_the_engine_does_not_see_is_not_denied(engine_name):
    exercise = find("phantom")
    blob = build(exercise.machine, sources=exercise.broken)
    data = report(exercise.machine, blob=blob, engine=engine_name).data
    assert bool(leads_of(data)["memmap.entries"]) == (engine_name == "unicorn")


def test_a_number_that_is_too_large_for_javascript_is_a_word():
    values = (0, -1, (1 << 53) - 1, 1 << 53, (1 << 64) - 1)
    assert [plain(value) for value in values] == [0, -1, 9007199254740991, "0x20000000000000", "0xffffffffffffffff"]


def test_a_foreign_rom_has_no_source_and_is_told_all_the_same(qboot):
    told, data = report(MICROVM, blob=read_firmware(str(qboot)))
    assert data["files"] == []
    assert {site[5] for site in data["sites"]} == {-1}
    assert data["handoff"] == len(told.recorded.firmware)
    titles = [title for _, _, title, _, _ in data["phases"]]
    assert titles[0] == "The reset vector"
    assert "QEMU's fw_cfg, by port" in titles
    assert not data["ok"]
    assert data["findings"][0][1] == "violated"
    assert data["causes"]
    assert {"selects the kernel's entry", "reads byte 0 of the kernel's entry", "reads byte 3 of the kernel's entry"} <= set(
        data["sentences"]
    )


def test_what_an_engine_cannot_see_is_said(engine_name):
    data = report(MICROVM, engine=engine_name).data
    seen = {data["effect_kinds"][kind] for kind in data["effects"]["kind"]}
    assert {"in", "out", "dma"} <= seen
    assert data["sees_memory"] == ({"load", "store"} <= seen) == (engine_name == "unicorn")
    assert ("no loads and stores" in dict(data["facts"])["engine"]) == (engine_name == "kvm")
