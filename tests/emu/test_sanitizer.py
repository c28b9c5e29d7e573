"""The sanitizer: pvhboot's own firmware is clean wherever it runs; what another's may do; what the command says."""

import json

import pytest
from command_line import fails
from pvhboot.emu.board import Board
from pvhboot.emu.cli import main
from pvhboot.emu.engines.base import Limits, Watch
from pvhboot.emu.reasons import EXIT, LIMIT
from pvhboot.emu.sanitizer import CLOBBER, EXECUTION, STORE, TRANSFER, UNWRITTEN, Sanitizer
from pvhboot.emu.session import get_engine
from pvhboot.emu.tables import read_tables
from pvhboot.loader.fw_cfg import fw_cfg_items
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi.apic import LOCAL_APIC
from pvhboot.shim.abi.e820 import E820_ENTRY
from pvhboot.shim.abi.x86 import ADDRESS_4G
from pvhboot.shim.blob import Blob
from pvhboot.shim.image import build
from pvhboot.shim.machines import BARE, GIB, MACHINES, MIB, MICROVM, MICROVM_ACPI, PC, Q35, UNIVERSAL
from pvhboot.shim.stock import default_blob, default_guest
from sanitizing import BEHIND, EBX, FREE, INITRD_DATA, KERNEL, LOAD_INITRD, RESERVED, foreign, mutated, sanitize


@pytest.mark.parametrize("has_initrd", [True, False], ids=["initrd", "no-initrd"])
@pytest.mark.parametrize("memory", [64 * MIB, 5 * GIB], ids=["64M", "5G"])
@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_the_own_firmware_is_clean(spec, memory, has_initrd):
    findings, outcome = sanitize(spec, default_blob(spec), memory=memory, has_initrd=has_initrd)
    assert outcome.ok
    assert findings == ()


@pytest.mark.parametrize("spec", [MICROVM, MICROVM_ACPI], ids=lambda spec: spec.name)
def test_it_is_clean_without_dma(spec):
    findings, outcome = sanitize(spec, default_blob(spec), dma=False)
    assert outcome.ok
    assert findings == ()


@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_a_verbose_one_is_clean(spec):
    findings, outcome = sanitize(spec, build(spec, verbose=True))
    assert outcome.ok
    assert findings == ()


@pytest.mark.parametrize("spec", UNIVERSAL.detects, ids=lambda spec: spec.name)
def test_the_universal_one_is_clean(spec):
    findings, outcome = sanitize(spec, default_blob(UNIVERSAL))
    assert outcome.ok
    assert findings == ()


@pytest.mark.parametrize("spec", MACHINES.values(), ids=MACHINES)
def test_a_rom_of_which_nothing_is_known_gives_no_false_alarm(spec):
    findings, outcome = sanitize(spec, foreign(default_blob(spec)))
    assert outcome.ok
    assert findings == ()


def test_what_the_kernel_does_is_its_own_affair():
    findings, outcome = sanitize(BARE, default_blob(BARE), until=EXIT)
    assert outcome.run.stop.reason == EXIT
    assert findings == ()


class Told(list[int]):
    """A Watcher: the addresses of the instructions up to the handoff."""

    def start(self, _cpu, _board):
        return Watch(instruction=lambda address, _size: self.append(address), to_handoff=True)


def test_a_kernel_runs_as_fast_as_without_it():
    """What watches up to the handoff is not asked of each instruction behind it."""
    told = Told()
    _, outcome = sanitize(BARE, default_blob(BARE), until=EXIT, watchers=[told])
    assert outcome.run.stop.reason == EXIT
    assert len(told) == outcome.handoff.counts["instructions"]


def test_nor_is_it_told_of_where_a_test_drives_the_cpu_on():
    blob = default_blob(BARE)
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        plan = make_plan(BARE, blob.data, kernel, memory=64 * MIB)
        board, sanitizer = Board(plan), Sanitizer(plan, blob)
        with get_engine("unicorn").cpu(board, Limits()) as cpu:
            watch = sanitizer.start(cpu, board)
            assert watch.to_handoff
            with cpu.watch(watch):
                assert not cpu.run_to(())
            assert cpu.stop.reason == EXIT
    assert sanitizer.findings == ()
    assert board.bus.listeners == []
    assert board.memory.fetch_listeners == []


def test_a_loop_gives_one_finding_with_its_range_and_number():
    stores = f"    mov edi, {FREE:#x}\n    mov ecx, 16\n    rep stosd\n"
    (finding,), _ = sanitize(BARE, mutated(BARE, "handoff.s", EBX, stores + EBX))
    assert (finding.paddr, finding.size) == (FREE, 4)
    assert (finding.start, finding.end, finding.times) == (FREE, FREE + 64, 16)


def test_what_was_said_once_is_not_said_of_what_follows():
    """What a store has put where it must not is there: who reads that does nothing new. Nor is anything told of what code does
    that is no code."""
    reads = f"    mov dword ptr [{FREE:#x}], 1\n    mov eax, dword ptr [{FREE:#x}]\n"
    (finding,), _ = sanitize(BARE, mutated(BARE, "handoff.s", EBX, reads + EBX))
    assert finding.kind == STORE
    astray = f"    mov eax, {BEHIND:#x}\n    jmp eax\n"  # add [eax], al, to what nobody has written, again and again
    (finding,), outcome = sanitize(BARE, mutated(BARE, "handoff.s", EBX, astray + EBX), instructions=1000)
    assert finding.kind == EXECUTION
    assert outcome.run.stop.reason == LIMIT


def test_the_own_code_may_run_where_the_rom_lies_a_second_time():
    jump = f"    mov eax, offset low_copy\n    sub eax, {ADDRESS_4G - MIB:#x}\n    jmp eax\nlow_copy:\n"
    findings, outcome = sanitize(MICROVM, mutated(MICROVM, "handoff.s", EBX, jump + EBX))
    assert outcome.handoff is not None
    assert findings == ()


def test_a_processor_has_a_local_apic_though_the_board_has_none():
    store = f"    mov dword ptr [{LOCAL_APIC + 0xF0:#x}], 0x1ff\n"
    findings, outcome = sanitize(BARE, mutated(BARE, "handoff.s", EBX, store + EBX))
    assert outcome.run.counts["write"] == 1
    assert findings == ()


@pytest.mark.parametrize("dma", [True, False], ids=["dma", "pio"])
def test_a_firmware_for_machines_with_acpi_may_put_tables_into_ram_wherever_it_runs(dma):
    """The universal one on a microvm without ACPI, whose host tells it of tables all the same."""
    blob = default_blob(UNIVERSAL)
    with Kernel.from_bytes(default_guest(64), "guest") as kernel:
        with_tables = make_plan(MICROVM_ACPI, blob.data, kernel, memory=64 * MIB, dma=dma)
        plan = make_plan(MICROVM, blob.data, kernel, memory=64 * MIB, dma=dma)
        board, sanitizer = Board(plan, fw_cfg_items=fw_cfg_items(with_tables)), Sanitizer(plan, blob)
        with get_engine("unicorn").cpu(board, Limits()) as cpu, cpu.watch(sanitizer.start(cpu, board)):
            assert cpu.run_to({plan.entry})
            assert read_tables(cpu.handoff()).start_info.rsdp_paddr
    assert sanitizer.findings == ()


def test_a_placed_byte_that_is_written_as_it_was_is_no_matter():
    same = f"    mov eax, dword ptr [{KERNEL:#x}]\n    mov dword ptr [{KERNEL:#x}], eax\n"
    findings, _ = sanitize(BARE, mutated(BARE, "handoff.s", EBX, same + EBX))
    assert findings == ()


# Of another's firmware: all free RAM is its own.

MOVED = f"""\
    mov esi, offset moved
    mov edi, {FREE:#x}
    mov ecx, moved_end - moved
    rep movsb
    mov eax, {FREE:#x}
    call eax
    jmp moved_end
moved:
    mov dword ptr [{KERNEL:#x}], 0x1234
    ret
moved_end:
"""


def test_another_firmware_may_move_to_ram_once_that_is_said_and_is_watched_there():
    blob = mutated(BARE, "handoff.s", EBX, MOVED + EBX)
    (moving, clobber), outcome = sanitize(BARE, foreign(blob))
    assert outcome.handoff is not None
    assert (moving.kind, moving.owner, moving.text) == (EXECUTION, "free RAM", "call eax")
    assert "which it has written itself" in moving.detail
    assert (clobber.kind, clobber.ip, clobber.place) == (CLOBBER, FREE, None)
    assert clobber.text == f"mov dword ptr [{KERNEL:#x}], 0x1234"
    assert [finding.kind for finding in sanitize(BARE, blob)[0]] == [STORE, EXECUTION]  # its own firmware has no business there


def test_another_firmware_has_all_free_ram_but_not_the_kernels_nor_what_is_reserved():
    stores = "".join(f"    mov dword ptr [{at:#x}], 0x77777777\n" for at in (FREE, RESERVED.start, KERNEL))
    findings, _ = sanitize(BARE, foreign(mutated(BARE, "handoff.s", EBX, stores + EBX)), reserved=(RESERVED,))
    assert [(finding.kind, finding.owner) for finding in findings] == [(STORE, "reserved RAM"), (CLOBBER, "kernel segment 0")]
    assert all(finding.place.symbol == "ROM" for finding in findings)


def test_another_firmware_that_copies_the_initrd_low_over_the_kernels_end():
    """qboot's wrong initrd base of old: not where fw_cfg says, but where the kernel's bss still is."""
    low = f"    mov edi, {KERNEL + 0x5000:#x}\n" + INITRD_DATA
    findings, _ = sanitize(MICROVM, foreign(mutated(MICROVM, "fw_cfg_kernel.s", LOAD_INITRD, low)))
    assert [(finding.kind, finding.owner) for finding in findings] == [(CLOBBER, "kernel segment 0")]
    assert findings[0].detail.startswith("00 00 00 00 00 00 00 00 at 0x105000 in kernel segment 0")


def test_another_firmware_may_use_the_place_of_the_initrd_until_that_is_there():
    scratch = "    mov dword ptr [eax], 0x77777777\n"
    assert sanitize(MICROVM, foreign(mutated(MICROVM, "fw_cfg_kernel.s", LOAD_INITRD, scratch + LOAD_INITRD)))[0] == ()
    after = "    mov eax, dword ptr [MODLIST_PADDR]\n" + scratch
    (finding,), _ = sanitize(MICROVM, foreign(mutated(MICROVM, "handoff.s", EBX, after + EBX)))
    assert finding.kind == CLOBBER
    assert finding.owner.startswith("module ")
    (own,), _ = sanitize(MICROVM, mutated(MICROVM, "fw_cfg_kernel.s", LOAD_INITRD, scratch + LOAD_INITRD))
    assert own.kind == STORE


@pytest.mark.parametrize("spec", [MICROVM, MICROVM_ACPI, PC, Q35], ids=lambda spec: spec.name)
def test_qboot(qboot, spec):
    """It has the head of the kernel's file put to 0, and on all but q35 it hands over an entry of the memory map that it has
    never written. It runs in RAM, where on a PC it has copied itself to: that is no finding."""
    findings, outcome = sanitize(spec, Blob(qboot.read_bytes(), {}, (), {}))
    assert outcome.handoff is not None
    assert [(finding.kind, finding.owner) for finding in findings[:1]] == [(TRANSFER, "the interrupt vectors")]
    assert "1024 of 8192 bytes at 0x0" in findings[0].detail
    unwritten = sum(finding.size for finding in findings[1:])
    assert {finding.kind for finding in findings[1:]} == (set() if spec is Q35 else {UNWRITTEN})
    assert unwritten == (0 if spec is Q35 else E820_ENTRY.size)


def test_qboot_where_it_cannot_run(qboot):
    """`bare` has no ROM below 1 MiB, where qboot jumps to."""
    (finding,), _ = sanitize(BARE, Blob(qboot.read_bytes(), {}, (), {}))
    assert finding.kind == EXECUTION
    assert "which nobody has written" in finding.detail


# The command.


@pytest.fixture
def overwriting(tmp_path):
    """A ROM that overwrites the kernel."""
    path = tmp_path / "firmware"
    store = f"    mov dword ptr [{KERNEL + 0x5000:#x}], 0x1234\n"
    path.write_bytes(mutated(BARE, "handoff.s", EBX, store + EBX).data)
    return path


def test_the_command_says_that_nothing_was_found(capsys):
    assert main(["boot", "--sanitize"]) == 0
    assert capsys.readouterr().out.endswith("\nsanitizer: nothing found\n")


def test_the_command_tells_what_was_found(capsys, overwriting):
    assert main(["boot", "--sanitize", "--firmware", str(overwriting), "--until", "handoff"]) == 1
    out = capsys.readouterr().out
    assert "\nsanitizer: 1 finding\n  clobber    00 00 00 00 at 0x105000 in kernel segment 0 (0x100000-0x105fff) becomes" in out
    assert ": mov dword ptr [0x105000], 0x1234\n" in out


def test_findings_alone_make_the_status_1(capsys, tmp_path):
    """The handoff is clean: a byte that is nobody's does not harm this kernel."""
    path = tmp_path / "firmware"
    path.write_bytes(mutated(BARE, "handoff.s", EBX, "    mov al, byte ptr [0x50000]\n" + EBX).data)
    arguments = ["boot", "--firmware", str(path), "--json"]
    assert main(arguments) == 0
    assert "sanitizer" not in json.loads(capsys.readouterr().out)
    assert main([*arguments, "--sanitize"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    (finding,) = said["sanitizer"]
    assert (finding["kind"], finding["paddr"], finding["size"], finding["times"]) == (UNWRITTEN, FREE, 1, 1)
    assert finding["place"].startswith("ROM+0x")


def test_kvm_does_not_see_enough(capsys, engine_name):
    sees = engine_name == "unicorn"
    assert main(["boot", "--sanitize", "--engine", engine_name]) == (0 if sees else 2)
    out, err = capsys.readouterr()
    assert ("use --engine unicorn" in err) == (not sees) == (out == "")


def test_nor_does_qemu(capsys):
    assert "use --engine unicorn" in fails(capsys, "boot", "--sanitize", "--engine", "qemu")
