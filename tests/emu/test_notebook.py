"""What is typed in a notebook: a boot is recorded from keywords, and says of itself what the command line says."""

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from fragments import Fragment
from pvhboot.emu.kit.boot_view import BootView
from pvhboot.emu.notebook import pvh, record
from pvhboot.emu.report.trace_text import record_text
from pvhboot.shim.abi.x86 import DESC_P, DESC_SIZE, RESET_VECTOR
from pvhboot.shim.errors import BootError
from pvhboot.shim.stock import default_guest

EXAMPLE = Path(__file__).parent.parent.parent / "docs/examples/handoff.ipynb"
SELECTOR = 0x10  # of the code segment


@pytest.fixture(scope="module")
def boot():
    return record(machine="microvm", memory="64M", append="quiet")


@pytest.fixture(scope="module")
def broken(boot):
    """The same with a code segment that is not present: it ends at the far jump."""
    rom, descriptor = bytearray(boot.plan.rom), boot.gdt[SELECTOR].value.to_bytes(DESC_SIZE, "little")
    at = rom.index(descriptor)
    rom[at : at + DESC_SIZE] = (boot.gdt[SELECTOR].value & ~DESC_P).to_bytes(DESC_SIZE, "little")
    return record(machine="microvm", memory="64M", firmware=bytes(rom))


def test_a_boot_and_its_parts_are_those_of_the_handoff(boot):
    assert boot.clean
    assert boot.handoff.start_info.cmdline == "quiet"
    assert boot.memory_map == boot.handoff.start_info.memmap == boot.handoff.memory_map
    assert boot.gdt == boot.handoff.gdt
    assert boot.findings == boot.handoff.findings
    assert boot.handoff.registers["eip"] == boot.plan.entry
    assert boot.io_log.of("fw_cfg-dma", kind="in").values == [0x554D4551]
    assert boot.debug_console == ""
    assert boot.causes == ()


def test_it_is_the_boot_of_a_test_s_machine(boot):
    machine = pvh(machine="microvm", memory="64M", append="quiet")
    handoff = machine.run_until_handoff()
    assert handoff == boot.handoff
    assert handoff.gdt == boot.gdt
    assert handoff.gdt.loaded.items() <= boot.gdt.loaded.items()
    assert handoff.instructions == boot.handoff.instructions
    assert Fragment(machine.segments._repr_html_()).text.count("0xffffffff") >= 4
    machine.close()


def test_a_machine_that_nobody_holds_is_let_go():
    machine = pvh(machine="microvm", memory="64M")
    held = weakref.ref(machine)
    del machine
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("kernel", ["a path", "bytes"])
def test_a_kernel_is_the_first_argument(tmp_path, kernel):
    path = tmp_path / "guest"
    path.write_bytes(default_guest(32))
    boot = record(path if kernel == "a path" else path.read_bytes())
    assert boot.plan.kernel.kind == "ELF32"
    assert boot.clean


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {"machine": "vax"}, "no machine named 'vax'"),
        ((), {"kernal": "x"}, "a machine has no 'kernal'; there is: engine"),
        ((), {"engine": "qemu"}, "the engine qemu does not show single instructions"),
        ((b"x",), {"kernel": b"x"}, "two kernels: name one"),
        ((), {"max_instructions": 0}, "max_instructions=0: give a number above 0"),
        ((), {"kernel_instructions": -1}, "kernel_instructions=-1: give a number"),
        ((), {"kernel_instructions": "3"}, "kernel_instructions='3': give a number"),
        ((), {"max_instructions": 1.5}, "max_instructions=1.5: give a number"),
        ((), {"sources": "mine.s"}, "sources is a str: give the text of each file by its name"),
    ],
)
def test_what_cannot_be_is_one_line(arguments, options, message):
    with pytest.raises(BootError) as raised:
        record(*arguments, **options)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_text_is_that_of_the_command_line(boot):
    assert repr(boot).startswith("<boot of conformance guest (ELF64, entry 0x100000) on microvm with 64 MiB, firmware ")
    assert repr(boot).endswith("; 27 of 27 clauses of the PVH ABI are met>")
    assert repr(boot.handoff) == "<handoff at 0x100000 on unicorn: 27 of 27 clauses met>"
    for told in (str(boot), str(boot.handoff)):
        assert "    memmap 0x000000100000-0x000003ffffff  RAM       63 MiB\n" in told
        assert "check: 27 of 27 clauses of the PVH ABI are met" in told
    assert str(boot).endswith("\nend: handoff")
    assert "\n0x000000100000-0x000003ffffff  RAM       63 MiB\n" in f"\n{boot.memory_map}\n"
    assert repr(boot.memory_map) == repr([*boot.memory_map])


def test_a_prompt_of_ipython_gives_all_of_it(boot):
    class Printer:
        def text(self, text):
            self.printed = text

    printer = Printer()
    for part in (boot, boot.handoff, boot.gdt, boot.gdt[SELECTOR], boot.memory_map, boot.trace[:5], boot.trace[0]):
        part._repr_pretty_(printer, False)
        assert printer.printed == str(part)
        part._repr_pretty_(printer, True)
        assert printer.printed == repr(part)


def test_the_trace_is_a_sequence_whose_slices_are_traces(boot):
    trace = boot.trace
    assert (trace[0].number, trace[0].address, trace[-1].number) == (1, RESET_VECTOR, len(trace))
    assert trace[trace.handoff - 1].address == boot.plan.entry
    assert len(trace) == trace.handoff - 1 + 16
    assert [each.number for each in trace[3:9:2]] == [4, 6, 8]
    assert type(trace[3:9]) is type(trace)
    assert trace[:3] == trace[:3] != trace[1:4]
    assert str(trace[:2]) == "\n".join(record_text(each) for each in trace[:2]) == f"{trace[0]}\n{trace[1]}"
    assert repr(trace[1:4]) == "<trace: 3 instructions, 2 to 4>"
    assert repr(trace[:0]) == str(trace[:0]) == "<trace: no instructions>"
    lines = str(trace).splitlines()
    assert len(lines) == 61
    assert lines[40] == f"… {len(trace) - 60} more"


@pytest.mark.parametrize(
    ("options", "holds"),
    [
        ({"changes": "cr0"}, lambda each: "cr0" in each.changes),
        ({"changes": ("cr0", "ds")}, lambda each: {"cr0", "ds"} & each.changes.keys()),
        ({"mode": 16}, lambda each: each.bits == 16),
        ({"symbol": "protected_mode"}, lambda each: each.place and each.place.symbol == "protected_mode"),
        ({"only": "io"}, lambda each: any(effect.kind in ("in", "out", "read", "write") for effect in each.effects)),
        ({"only": ["dma", "stores"]}, lambda each: any(effect.kind in ("dma", "store") for effect in each.effects)),
        ({"mode": 32, "only": "loads"}, lambda each: each.bits == 32 and any(x.kind == "load" for x in each.effects)),
        ({"wanted": lambda each: each.times > 1}, lambda each: each.times > 1),
    ],
)
def test_where_chooses_as_the_options_of_trace_do(boot, options, holds):
    found = boot.trace.where(**options)
    assert [*found] == [each for each in boot.trace if holds(each)]
    assert 0 < len(found) < len(boot.trace)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"changes": "cr9"}, "changes='cr9': there is eax, ecx"),
        ({"mode": 8}, "mode=8: there is 16, 32, 64"),
        ({"only": ["io", "ports"]}, "only='ports': there is io, loads, stores, dma"),
        ({"wanted": "lgdt"}, r"where\('lgdt'\): give a function of a record, or a keyword"),
    ],
)
def test_where_refuses_what_can_fit_nothing(boot, options, message):
    with pytest.raises(BootError, match=f"^{message}"):
        boot.trace.where(**options)


def test_registers_in_front_of_an_instruction(boot):
    (switch,) = boot.trace.where(changes="cr0")
    assert boot.before(switch.number)["cr0"] & 1 == 0
    assert boot.before(switch.number + 1)["cr0"] == switch.changes["cr0"]
    assert boot.before(1) == boot.trace[0].before
    for number in (0, len(boot.trace) + 1):
        with pytest.raises(BootError, match=f"no instruction has the number {number}: they go from 1 to {len(boot.trace)}"):
            boot.before(number)


def test_a_boot_without_a_handoff_shows_where_it_ended(broken):
    assert not broken.clean
    assert broken.causes[0].title == "the descriptor of selector 0x10 is not marked present"
    assert not broken.gdt[SELECTOR].segment.present
    assert broken.trace.handoff is None
    assert "ljmp" in broken.trace[-1].text
    assert "likely cause: the descriptor of selector 0x10 is not marked present" in str(broken)
    for part in ("handoff", "memory_map"):
        with pytest.raises(
            BootError, match=r"^the handoff was not reached: fault: #NP .* \(trace\[-16:\] shows the last steps\)$"
        ):
            getattr(broken, part)


def test_a_boot_that_goes_astray_ends(boot):
    rom = bytearray(boot.plan.rom)
    rom[len(rom) - 16 : len(rom) - 14] = b"\xeb\xfe"  # jmp to itself
    lost = record(machine="microvm", memory="64M", firmware=bytes(rom), max_instructions=100)
    assert len(lost.trace) == 100
    assert lost.causes[0].title == "an endless loop"
    assert "the trace's limit of 100 has been reached" in lost.summary


def test_a_gdt_that_the_kernel_writes_over_is_that_of_the_handoff(boot):
    """mov edi, GDT; xor eax, eax; stosd, three times."""
    image = bytearray(default_guest(64))
    kernel = boot.plan.kernel.segments[0]
    code = b"\xbf" + boot.gdt.base.to_bytes(4, "little") + b"\x31\xc0" + b"\xab" * 6 + b"\xf4"
    at = kernel.offset + boot.plan.entry - kernel.paddr
    image[at : at + len(code)] = code
    overwritten = record(bytes(image), machine="microvm", memory="64M", append="quiet")
    assert overwritten.trace.where(only="stores", wanted=lambda each: each.number > overwritten.trace.handoff)
    assert overwritten.gdt == boot.gdt


def test_of_kvm_loads_cannot_be_chosen(engine_name):
    boot = record(machine="microvm", memory="64M", engine=engine_name)
    assert boot.clean
    assert boot.gdt[SELECTOR].segment.db
    if engine_name == "kvm":
        with pytest.raises(BootError, match="the engine kvm does not see loads and stores"):
            boot.trace.where(only="loads")
    else:
        assert boot.trace.where(only="loads")


def test_the_cells_of_the_example_run_in_their_order():
    notebook = json.loads(EXAMPLE.read_text())
    assert notebook["nbformat"] == 4
    names, shown = {}, []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        *_, last = (source := "".join(cell["source"])).splitlines()
        exec(source, names)
        shown.append(eval(last, names))
        Fragment(shown[-1]._repr_html_())
    assert isinstance(shown[0], BootView)
    assert shown[0].clean
    assert not shown[-1].segment.present


def test_nobody_pays_for_the_html_but_who_looks_at_it():
    code = (
        "import sys\nfrom pvhboot.emu.notebook import record\nboot = record()\nstr(boot), str(boot.gdt), repr(boot)\n"
        "print(sorted(name for name in sys.modules if name.startswith('pvhboot.emu.html')))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
