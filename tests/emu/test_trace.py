"""A trace: each instruction once, with what it did, and how the run ended; as values, as a file and as text."""

import json
import os
import resource
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import forge_faults as forge
import pytest
from command_line import command, fails
from host import kvm_problem
from pvhboot.emu.board import Board
from pvhboot.emu.cli import main
from pvhboot.emu.effects import DATA_MAX, Effect
from pvhboot.emu.engines.base import STATE_REGISTERS, Limits
from pvhboot.emu.session import get_engine
from pvhboot.emu.trace import End, Record, Window
from pvhboot.emu.trace_file import Header, TraceFile, to_line
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import x86
from pvhboot.shim.abi.firmware import DEBUGCON_PORT
from pvhboot.shim.blob import Place
from pvhboot.shim.machines import BARE, MIB, MICROVM
from pvhboot.shim.stock import default_blob, default_guest
from traced import flat_guest, guest_records, trace_of

BUFFER = 0x300000
NOBODY = 0xD0000000  # no memory, no device


def records_of(items):
    return [item for item in items if isinstance(item, Record)]


def effects(code, engine="unicorn"):
    """Of the last instruction of the code."""
    return list(guest_records(code, engine)[-1].effects)


def test_the_first_instructions_of_a_boot(engine_name):
    first, second, third = records_of(trace_of(engine_name, "handoff", window=Window(limit=3)))
    assert (first.number, first.bits, first.cs, first.ip, first.address) == (1, 16, 0xF000, 0xFFF0, x86.RESET_VECTOR)
    assert first.text.startswith("jmp ")
    assert first.code == default_blob(BARE).data[0xFFF0:][: len(first.code)]
    assert first.place == default_blob(BARE).locate(x86.RESET_VECTOR)
    assert first.changes == {}
    assert set(first.before) == set(STATE_REGISTERS)
    assert [first.before[name] for name in ("cs", "cs_base", "cs_limit")] == [0xF000, 0xFFFF0000, 0xFFFF]
    assert [first.before[name] for name in ("cr0", "eflags")] == [x86.RESET_CR0, x86.RESET_EFLAGS]
    assert second.text.startswith("lgdt ")
    assert set(second.changes) == {"gdtr_base", "gdtr_limit"}
    assert second.place.source.startswith("realmode.s:")
    assert third.before is second.before is None


def test_the_state_that_a_trace_asks_for_is_the_whole_state(engine_name):
    blob = default_blob(MICROVM)
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        plan = make_plan(MICROVM, blob.data, kernel, memory=64 * MIB)
        with get_engine(engine_name).cpu(Board(plan), Limits()) as cpu:
            for _ in range(40):
                state = cpu.state()
                values = dict(zip(STATE_REGISTERS, state.values, strict=True))
                registers = {name: value for name, value in cpu.registers().items() if name != "eip"}
                assert {name: values[name] for name in registers} == registers
                for name, segment in cpu.segments().items():
                    told = (segment.selector, segment.base, segment.limit)
                    assert (values[name], values[f"{name}_base"], values[f"{name}_limit"]) == told
                assert (values["ldtr_limit"], values["idtr_limit"]) == (x86.RESET_TABLE_LIMIT, x86.RESET_TABLE_LIMIT)
                assert state.bits == cpu.bits
                assert cpu.step()


def test_the_modes_of_a_boot_follow_one_another(engine_name):
    kernel = forge.forge("long", "    mov r9d, 5\n").elf
    records = records_of(trace_of(engine_name, "exit", kernel))
    modes = [record.bits for record in records]
    assert modes == sorted(modes)
    assert set(modes) == {16, 32, 64}
    (move,) = [record for record in records if record.text == "mov r9d, 5"]
    assert move.changes == {"r9": 5}
    assert move.ip == move.address
    for name in ("cr3", "cr4"):
        (at,) = [at for at, record in enumerate(records) if record.text == f"mov {name}, eax"]
        assert records[at].changes == {name: records[at - 1].changes["eax"]}
    assert [record.changes["efer"] for record in records if "efer" in record.changes] == [0x900, 0xD00]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (f"mov dword ptr [{BUFFER}], 0x12345678", [Effect("store", BUFFER, 4, 0x12345678)]),
        (f"mov byte ptr [{BUFFER}], 1\n mov al, byte ptr [{BUFFER}]", [Effect("load", BUFFER, 1, 1)]),
        (
            f"mov byte ptr [{BUFFER}], 1\n inc byte ptr [{BUFFER}]",
            [Effect("load", BUFFER, 1, 1), Effect("store", BUFFER, 1, 2)],
        ),
        (f"mov al, 65\n mov edx, {DEBUGCON_PORT}\n out dx, al", [Effect("out", DEBUGCON_PORT, 1, 65, "debugcon")]),
        (f"mov edx, {DEBUGCON_PORT}\n in al, dx", [Effect("in", DEBUGCON_PORT, 1, 0xE9, "debugcon")]),
        (f"mov eax, dword ptr [{NOBODY}]", [Effect("read", NOBODY, 4, 0xFFFFFFFF)]),
        (f"mov dword ptr [{NOBODY}], 7", [Effect("write", NOBODY, 4, 7)]),
        ("mov dword ptr [0xffff0000], 7", [Effect("write", 0xFFFF0000, 4, 7, "rom")]),
        ("nop", []),
    ],
)
def test_what_an_instruction_does(code, expected):
    assert effects(code) == expected


def test_kvm_tells_what_devices_see_and_no_memory():
    if problem := kvm_problem():
        pytest.skip(problem)
    assert effects(f"mov dword ptr [{BUFFER}], 7", "kvm") == []
    assert effects(f"mov dword ptr [{NOBODY}], 7", "kvm") == [Effect("write", NOBODY, 4, 7)]


def test_a_device_that_writes_to_memory_is_told_with_what_it_wrote(engine_name):
    records = records_of(trace_of(engine_name, "handoff", spec=MICROVM))
    written = [effect for record in records for effect in record.effects if effect.kind == "dma"]
    control = [effect for effect in written if effect.size == 4 and effect.data == "00000000"]
    assert len(control) > 3  # fw_cfg clears its control word
    assert all(len(bytes.fromhex(effect.data)) == effect.size for effect in written if effect.size <= DATA_MAX)
    assert any(effect.data.startswith("sha256:") for effect in written if effect.size > DATA_MAX)


REPEATED = [
    ("rep stosb", 3, {"ecx": 0, "edi": BUFFER + 3}),
    ("rep stosd", 100, {"ecx": 0, "edi": BUFFER + 400}),
    ("rep stosb", 0, {}),
]


@pytest.mark.parametrize(("code", "count", "changes"), REPEATED)
def test_a_repeated_instruction_is_one_record(engine_name, code, count, changes):
    records = guest_records(f"mov edi, {BUFFER}\n mov eax, 0x5a\n mov ecx, {count}\n {code}\n nop", engine_name)
    *_, record, after = records
    assert record.text.startswith(code)
    assert (after.text, after.number) == ("nop", record.number + 1)
    assert (record.times, record.changes) == (count, changes)


def test_what_a_repeated_instruction_moved_is_told_by_its_bytes_or_their_hash():
    start = f"mov esi, {BUFFER}\n mov edi, {BUFFER + 0x1000}\n mov dword ptr [esi], 0x04030201\n"
    (few,) = [record for record in guest_records(start + "mov ecx, 2\n rep movsb\n") if record.times != 1]
    assert few.effects == (
        Effect("load", BUFFER, 1, None, "", 2, "0102"),
        Effect("store", BUFFER + 0x1000, 1, None, "", 2, "0102"),
    )
    (many,) = [record for record in guest_records(start + "mov ecx, 20\n rep movsd\n") if record.times != 1]
    data = f"sha256:{sha256(bytes((1, 2, 3, 4)) + bytes(76)).hexdigest()}"
    assert many.effects[1] == Effect("store", BUFFER + 0x1000, 4, None, "", 20, data)
    (down,) = [record for record in guest_records(start + "add esi, 3\n std\n mov ecx, 4\n rep movsb\n") if record.times != 1]
    assert down.effects == (
        Effect("load", BUFFER, 1, None, "", 4, "04030201"),
        Effect("store", BUFFER + 0x1000 - 3, 1, None, "", 4, "04030201"),
    )


def test_port_input_to_memory_is_asked_and_stored_once_for_each_element():
    start = f"mov edx, {DEBUGCON_PORT}\n mov edi, {BUFFER}\n mov ecx, 3\n"
    assert effects(start + "insb") == [Effect("in", DEBUGCON_PORT, 1, 0xE9, "debugcon"), Effect("store", BUFFER, 1, 0xE9)]
    assert effects(start + "rep insb") == [
        Effect("in", DEBUGCON_PORT, 1, None, "debugcon", 3, "e9e9e9"),
        Effect("store", BUFFER, 1, None, "", 3, "e9e9e9"),
    ]


def test_an_instruction_that_changes_the_next_one_is_told_once(engine_name):
    store, changed = guest_records("    mov byte ptr [next + 1], 0x55\nnext:\n    mov al, 0x44\n", engine_name)
    assert store.text.startswith("mov byte ptr")
    assert [effect.kind for effect in store.effects] == (["store"] if engine_name == "unicorn" else [])
    assert (changed.text, changed.code, changed.changes["eax"] & 0xFF) == ("mov al, 0x55", b"\xb0\x55", 0x55)


def test_a_rep_without_effect_is_no_repetition(engine_name):
    """As compilers write it for old processors."""
    records = guest_records("    mov ecx, 5\n    call f\n    jmp g\nf:\n    .byte 0xf3, 0xc3\ng:\n    nop\n", engine_name)
    assert [(record.text.split()[0], record.times) for record in records[2:4]] == [("repz", 1), ("jmp", 1)]


def test_an_instruction_that_jumps_to_itself_is_told_each_time(engine_name):
    _, *loops = guest_records("    mov ecx, 3\nagain:\n    loop again\n", engine_name)
    assert [record.changes["ecx"] for record in loops] == [2, 1, 0]


def test_the_end_tells_how_and_where(engine_name):
    at_entry, exited = trace_of(engine_name, "handoff")[-1], trace_of(engine_name, "exit", flat_guest("nop\n"))[-1]
    assert at_entry[:3] == ("handoff", "", 0x100000)
    assert (exited.reason, exited.detail) == ("exit", "the guest left with 0")
    items = trace_of(engine_name, "exit", flat_guest("nop\n ud2\n"))
    assert items[-2].text == "ud2"
    assert (items[-1].reason, items[-1].address) == ("fault", forge.CODE + 1)


def test_the_instruction_behind_the_exit_is_not_told(engine_name):
    *_, last, end = trace_of(engine_name, "exit", flat_guest("nop\n"))
    assert last.text == "out dx, al"
    assert last.number == end.instructions


def test_a_window_begins_at_a_place_and_ends_the_run_at_another(engine_name):
    begin, end = (default_blob(BARE).symbols[name] for name in ("start_info_done", "handoff"))
    items = trace_of(engine_name, "exit", window=Window(frozenset((begin,)), frozenset((end,))))
    records = records_of(items)
    assert records[0].address == begin
    assert records[0].number == 1
    assert records[0].before is not None
    assert all(begin <= record.address < end for record in records)
    assert (items[-1].reason, items[-1].address) == ("limit", end)


def test_a_window_that_never_begins_is_empty(engine_name):
    (end,) = trace_of(engine_name, "handoff", window=Window(begin=frozenset((0x1234,))))
    assert end == End("handoff", "", 0x100000, 0)


def test_what_is_not_wanted_is_counted_only():
    window = Window(limit=2, wanted=lambda record: "cr0" in record.changes or "cs" in record.changes)
    first, second, end = trace_of("unicorn", "handoff", window=window)
    assert first.before is not None
    assert (set(first.changes), "cs" in second.changes) == ({"cr0"}, True)
    assert end.instructions == second.number == first.number + 1


RECORDS = [
    Record(1, 16, 0xF000, 0xFFF0, 0xFFFFFFF0, b"\x90", "nop", Place("a", 0, "a.s:1"), {}, before={"eax": 1}),
    Record(2, 64, 8, (1 << 64) - 1, (1 << 64) - 1, b"", "(no memory)", None, {"eax": (1 << 64) - 1}),
    Record(3, 32, 8, 1, 1, b"\xf3\xa4", "rep movsb", Place("ROM", 5, ""), {}, (Effect("load", 5, 1, None, "", 0, "00"),), 0),
    Record(4, 32, 8, 1, 1, b"\xee", "out dx, al", None, {}, (Effect("out", 5, 1, 0, "post"), Effect("dma", 5, 2, data="0102"))),
]


@pytest.mark.parametrize("end", [End("handoff", "", 0x100000, 4), End("", "", None, 0)])
def test_a_file_gives_back_what_was_written(tmp_path, end):
    header = Header("unicorn", "bare", 1 << 20, "kernel", 0x100000, "00", True, ("--only io",))
    items = [record._replace(effects=tuple(e._replace(times=max(e.times, 1)) for e in record.effects)) for record in RECORDS]
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(to_line(item) for item in (header, *items, end)))
    with TraceFile(str(path)) as file:
        assert file.header == header
        assert list(file) == [*items, end]


def test_the_command_prints_text(capsys):
    lines = command(capsys, "trace", "--limit", "4").splitlines()
    assert lines[0].startswith("conformance guest (ELF64, entry 0x100000) on bare")
    assert lines[1].split()[:3] == ["1", "16", "f000:fff0"]
    assert "realmode.s:" in lines[2]
    assert "gdtr_limit=0x1f" in lines[2]
    assert lines[4].split()[-1] == "cr0=0x11"
    assert lines[5].startswith("end: limit: the trace's limit of 4")
    assert len(lines) == 6


def test_the_command_writes_json_lines_or_text_to_a_file(capsys, tmp_path):
    path, text = tmp_path / "trace.jsonl", tmp_path / "trace.txt"
    told = command(capsys, "trace", "--until", "handoff", "-o", path)
    with TraceFile(str(path)) as file:
        items = list(file)
    assert told == f"{path}: {len(items) - 1} of {len(items) - 1} instructions; end: handoff, at 0x100000\n"
    assert path.read_text() == command(capsys, "trace", "--until", "handoff", "--json")
    command(capsys, "trace", "--until", "handoff", "--text", "-o", text)
    assert text.read_text() == command(capsys, "trace", "--until", "handoff")


CHOSEN = [
    (["--mode", "16"], lambda record: record["mode"] == 16),
    (["--only", "io"], lambda record: any(effect["kind"] in ("in", "out") for effect in record["does"])),
    (["--only", "dma", "--only", "loads"], lambda record: any(effect["kind"] in ("dma", "load") for effect in record["does"])),
    (["--only", "stores"], lambda record: any(effect["kind"] == "store" for effect in record["does"])),
    (["--symbol", "e820_sort"], lambda record: record["symbol"] == "e820_sort"),
    (["--changes", "cs", "--changes", "cr0"], lambda record: {"cs", "cr0"} & set(record["set"])),
    (
        ["--from", "e820_sort", "--to", "start_info_done"],
        lambda record: record["symbol"] != "start_info_done",
    ),
]


@pytest.mark.parametrize(("options", "chosen"), CHOSEN, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_the_command_chooses(capsys, options, chosen):
    assert main(["trace", "--machine", "microvm", "--until", "handoff", "--json", *options]) == 0
    header, *records, _ = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert 0 < len(records) < 300
    assert all(chosen(record) for record in records)
    assert bool(header["filters"]) == (options[0] != "--from")


WRONG = [
    (["--from", "nowhere"], "no symbol 'nowhere'"),
    (["--to", "0xzz"], "cannot read --to '0xzz': write a label, a kernel's symbol, or an address as 0xfffffff0"),
    (["--from", "0x10000000000000000"], "cannot read --from"),
    (["--engine", "kvm", "--only", "io", "--only", "stores"], "--only stores: the engine kvm does not see loads and stores"),
    (["--engine", "kvm", "--only", "loads"], "--only loads: the engine kvm does not see loads and stores"),
    (["--symbol", "nowhere"], "no symbol 'nowhere'"),
    (["--changes", "rax"], "no such register; there is eax"),
    (["--limit", "0"], "give a number above 0"),
    (["--json", "-o", "x"], "--output writes JSON Lines without it"),
    (["--text"], "--text is for --output"),
    (["-o", "no/such/directory"], "cannot write"),
    (["--until", "soon"], "cannot read --until"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input(capsys, options, message):
    assert message in fails(capsys, "trace", *options)


@pytest.mark.parametrize("place", ["0x12345", "0xffffffff81000000"])
def test_a_place_that_is_never_come_to_is_status_1(capsys, place):
    assert main(["trace", "--until", "handoff", "--from", place]) == 1
    out, err = capsys.readouterr()
    assert err == f"pvhboot: --from {place}: the run never came there, so there is nothing to tell\n"
    assert out.splitlines()[1:] == ["end: handoff, at 0x100000"]


def test_a_run_that_does_not_end_as_asked_is_status_1(capsys):
    assert main(["trace", "--max-instructions", "3", "--mode", "16"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "end: limit: 3 instructions have been executed, at 0xffff800d"


TRACE = (sys.executable, "-c", "import sys; from pvhboot.emu.cli import main; sys.exit(main(['trace']))")


def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(TRACE, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, "pvhboot: cannot write the output: No space left on device\n")


def test_a_file_that_cannot_be_written_to_its_end_is_not_there(tmp_path, capsys):
    """A limit on the size of files does what a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        error = fails(capsys, "trace", "-o", tmp_path / "trace.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot write: File too large" in error
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_whose_name_is_no_text(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kernel = Path(os.fsdecode(b"\xff"))
    kernel.write_bytes(default_guest(64))
    command(capsys, "trace", kernel, "--limit", "2", "--text", "-o", "text")
    assert Path("text").read_text().startswith("\\udcff (ELF64, ")
    command(capsys, "trace", kernel, "--limit", "2", "-o", "lines")
    with TraceFile("lines") as file:
        assert file.header.kernel == str(kernel)


@pytest.mark.parametrize("command_line", [("trace", "-o"), ("boot", "--record-io"), ("boot", "--coverage")])
def test_no_module_is_written_over(tmp_path, capsys, command_line):
    command_name, option = command_line
    module = tmp_path / "module"
    module.write_bytes(b"of the user")
    arguments = [command_name, "--module", f"{module},words", option, module]
    error = fails(capsys, *arguments)
    assert "is to be read and written" in error or "no coverage that pvhboot has written" in error
    assert module.read_bytes() == b"of the user"


def test_a_reader_that_goes_away_ends_it_quietly():
    with subprocess.Popen(TRACE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait(60) == 141


def test_a_boot_without_a_trace_imports_none_of_it():
    code = (
        "import sys; from pvhboot.emu.cli import main; main(['boot', '--json']);"
        "print(*(name for name in sys.modules if 'trace' in name or 'capstone' in name), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not [name for name in done.stderr.split() if name.startswith(("pvhboot.emu.trace", "pvhboot.emu.own", "capstone"))]
