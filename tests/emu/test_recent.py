"""The last instructions of a run, how they were decoded, and who stored to what is not his."""

import pytest
from mutant_boot import kernel_image
from pvhboot.emu.board import Board
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.places import Places
from pvhboot.emu.reasons import HANDOFF
from pvhboot.emu.recent import Recent
from pvhboot.emu.session import get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.abi import fw_cfg
from pvhboot.shim.abi.x86 import RESET_VECTOR
from pvhboot.shim.image import asm_source, build
from pvhboot.shim.machines import BARE, MIB, MICROVM, Q35, Span

FLAT = "    cld\n"


@pytest.fixture
def watched(engine_name):
    """What is known of a boot of a firmware, `flat` put behind where its segments are flat, up to `stop` or the handoff."""

    def boot(spec=BARE, flat="", count=64, stop=None, **how):
        blob = build(spec, sources={"flat32.s": asm_source("flat32.s").replace(FLAT, FLAT + flat)})
        engine = get_engine(engine_name)
        with Kernel.from_bytes(kernel_image(), "guest") as kernel:
            plan = make_plan(spec, blob.data, kernel, memory=64 * MIB, cmdline="hello")
            recent, board = Recent(Places(plan, blob), count, **how), Board(plan)
            if stop is None:
                engine.run(board, Until(HANDOFF), Limits(seconds=20.0), lambda _handoff: None, [recent])
                return recent.history()
            with engine.cpu(board, Limits(seconds=20.0)) as cpu, cpu.watch(recent.start(cpu, board)):
                assert cpu.run_to({blob.symbols[stop]})
                return recent.history()

    return boot


def test_each_instruction_is_decoded_as_it_was_executed(watched):
    executed = watched(stop="protected_mode").executed
    assert [(one.bits, one.text.split()[0]) for one in executed] == [
        (16, "jmp"),
        (16, "lgdt"),
        (16, "mov"),
        (16, "mov"),
        (16, "ljmp"),
    ]
    assert executed[0].address == RESET_VECTOR
    assert str(executed[0].place).startswith("reset_vector (reset.s:")
    assert watched().executed[-1].bits == 32


def test_the_last_ones_alone_are_kept(watched):
    assert [one.text for one in watched(count=2, stop="protected_mode").executed] == [
        one.text for one in watched(stop="protected_mode").executed[-2:]
    ]


def test_all_iterations_of_a_rep_are_one(watched):
    copied = "    mov esi, 0x8000\n    mov edi, 0x9000\n    mov ecx, 5\n    rep movsb\n    mov ecx, 0x77\n"
    texts = [one.text for one in watched(flat=copied, count=1000).executed]
    at = texts.index("mov ecx, 0x77")
    assert texts[at - 2] == "mov ecx, 5"
    assert texts[at - 1].startswith("rep movsb")


def test_an_instruction_that_jumps_to_itself_is_one_with_a_count(watched):
    executed = watched(flat="    mov ecx, 5\n1:  loop 1b\n", count=1000).executed
    assert [one.times for one in executed if one.text.startswith("loop")] == [5]


def test_registers_are_those_in_front_of_the_instruction(watched):
    executed = watched(flat="    mov ecx, 0x1234\n    inc ecx\n    nop\n", count=1000).executed
    at = next(at for at, one in enumerate(executed) if one.text == "inc ecx")
    assert [one.registers["ecx"] for one in executed[at : at + 2]] == [0x1234, 0x1235]
    none = watched(count=1000, registers_from=1_000_000).executed
    assert not any(one.registers for one in none)
    assert none[-1].bits == 32


def test_jumps_and_those_out_of_the_rom(watched):
    history = watched(
        flat="    mov dword ptr [0x8000], 0xe7ff00eb\n    mov edi, offset 9f\n    mov eax, 0x8000\n    jmp eax\n9:\n"
    )
    out, *_ = history.exits
    assert out.target == 0x8000
    assert (0x8002, out.origin + 2) in history.jumps


def test_who_stores_to_the_kernel_is_seen_before_the_handoff(watched, engine_name):
    history = watched(flat="    inc dword ptr [0x40004]\n", spans=[Span("kernel", 0x40000, 0x40040)])
    if engine_name == "kvm":
        assert history.stores == ()  # it does not see who stores
        return
    store, *others = history.stores
    assert (store.span, store.paddr, store.size, store.by_device, others) == ("kernel", 0x40004, 4, False, [])


def test_a_store_to_the_rom_has_its_instruction(watched):
    ((access, instruction),) = watched(flat="    mov dword ptr [rom_gdt], 1\n", count=1000).rom_stores
    assert (access.kind, access.value) == ("write", 1)
    assert instruction > 0xFFFF0000


def test_a_transfer_whose_descriptor_lies_in_the_rom(watched):
    """The host cannot answer there, as the ROM cannot be written: what stands there is what was asked for."""
    asked = "    mov eax, 0xf0ffff\n    mov dx, 0x518\n    out dx, eax\n"  # 0xfffff000, the other way round
    (transfer, *_) = watched(Q35, flat=asked).transfers
    said = fw_cfg.FW_CFG_DMA.unpack(build(Q35).data[-0x1000:][: fw_cfg.FW_CFG_DMA.size])
    assert (transfer.descriptor, transfer.control, transfer.length) == (0xFFFFF000, said.control, said.length)


def test_another_device_at_the_port_of_fw_cfg_makes_no_transfers(pvh, engine_name):
    """mov dx, 0x518; out dx, eax: to a device of the test, on a machine without fw_cfg."""
    mine = type("Mine", (), {"read": print, "write": lambda *_access: None})()
    machine = pvh(engine=engine_name, devices={range(0x510, 0x51C): mine})
    recent = Recent(machine.places)
    machine.run_until_handoff()
    machine.memory[machine.plan.entry : machine.plan.entry + 5] = b"\x66\xba\x18\x05\xef"
    with machine.cpu.watch(recent.start(machine.cpu, machine.board)):
        machine.step(2)
    assert machine.io_log.of("Mine").values == [machine.registers["eax"]]
    assert recent.history().transfers == ()


def test_transfers_of_fw_cfg_are_as_they_were_asked_for(watched):
    transfers = watched(MICROVM).transfers
    last = transfers[-1]
    keys = {one.control >> fw_cfg.FW_CFG_DMA_CTL_KEY_SHIFT for one in transfers}
    assert {fw_cfg.FW_CFG_FILE_DIR, fw_cfg.FW_CFG_CMDLINE_DATA} <= keys
    assert all(one.control & fw_cfg.FW_CFG_DMA_CTL_READ for one in transfers)
    assert last.descriptor == MICROVM.low.control.start
    assert (last.control >> fw_cfg.FW_CFG_DMA_CTL_KEY_SHIFT, last.length) == (fw_cfg.FW_CFG_NB_CPUS, 4)
