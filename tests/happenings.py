"""What happens to a firmware while it runs: things that no board of ours does by itself, by their names in ways.py."""

from collections.abc import Callable, Mapping
from typing import Any

import unicorn
import unicorn.x86_const as const
from hostile import Run
from pvhboot.emu.board import Board
from pvhboot.emu.engines.base import Limits, Watch
from pvhboot.emu.engines.unicorn_context import LiveContext
from pvhboot.emu.engines.unicorn_cpu import UnicornCpu
from pvhboot.emu.reasons import HALT
from pvhboot.shim.abi import apic
from pvhboot.shim.abi.x86 import CPUID_1_EDX_MTRR
from pvhboot.shim.defs import Options, firmware_symbols
from pvhboot.shim.machines import FIRMWARES

Watcher = Callable[[UnicornCpu, Board], Watch]
FEW = 3  # turns of a loop that waits
WRITE = 0x10  # FW_CFG_DMA_CTL_WRITE


def happening(name: str, firmware: str, symbols: Mapping[str, int], start: Watcher) -> Run:
    """What happens by that name, as the Judge runs it: with the firmware of that name, which has these labels; `start` watches
    another processor."""
    defined = firmware_symbols(FIRMWARES[firmware], Options())

    def transfer_ends(cpu: UnicornCpu, board: Board, target: int) -> bool:
        """DMA that does not answer, the first time; then it has done all."""
        assert cpu.run_to({symbols["fw_cfg_dma_wait"]})
        cpu.step()
        ports: Any = board.bus._ports[0x514].device
        ports._execute = lambda paddr: type(ports)._execute(ports, paddr)
        cpu.step()
        ports._execute(defined["FW_CFG_DMA_PADDR"])
        return cpu.run_to({target})

    def patience_ends(label: str) -> Run:
        def run(cpu: UnicornCpu, _board: Board, target: int) -> bool:
            assert cpu.run_to({symbols[label]})
            cpu.step()
            cpu.set_register("ecx", FEW)
            return cpu.run_to({target})

        return run

    def takes_what_is_written(cpu: UnicornCpu, board: Board, target: int) -> bool:
        ports: Any = board.bus._ports[0x514].device

        def execute(paddr: int) -> None:
            if board.memory.read(paddr, 4)[3] & WRITE:
                with board.memory.writing(paddr, 4) as control:
                    control[:] = bytes(4)
            else:
                type(ports)._execute(ports, paddr)

        ports._execute = execute
        return cpu.run_to({target})

    def interrupt(cpu: UnicornCpu, _board: Board, target: int) -> bool:
        """It ends the hlt at the end of a panic: the next instruction is executed."""
        assert not cpu.run_to({target})
        assert cpu.stop is not None
        assert cpu.stop.reason == HALT
        cpu.stop = None
        return cpu.run_to({target})

    def other_starts(cpu: UnicornCpu, board: Board, target: int) -> bool:
        """It begins where the interrupt has told it to, and counts itself."""
        assert cpu.run_to({symbols["cpus_wait"]})
        begin = defined["AP_PADDR"]
        other = UnicornCpu(Board(board.plan, board.memory), Limits(instructions=1000))
        try:
            state = LiveContext(other.uc)
            state.put_segments({"cs": state.segment("cs")._replace(selector=begin >> 4, base=begin)})
            state.rip = 0
            state.restore()
            answer_cpuid(other, ebx=1 << apic.CPUID_1_EBX_APIC_ID_SHIFT)
            with other.watch(_moved(start(other, board), begin, symbols["ap_start"], symbols["ap_protected"])):
                assert not other.run_to(())
                other.stop = None  # a non-maskable interrupt: it waits on
                assert not other.run_to(())
            assert other.stop is not None
            assert other.stop.reason == HALT
        finally:
            other.let_go()
        reached = cpu.run_to({target})
        assert board.memory.read(defined["CPU_FOUND"], 4) == b"\2\0\0\0"
        return reached

    def answers_late(cpu: UnicornCpu, board: Board, target: int) -> bool:
        assert cpu.run_to({symbols["cpus_wait"]})
        cpu.step()
        cpu.set_register("ecx", FEW)
        assert cpu.run_to({symbols["mp_processor"]})
        with board.memory.writing(defined["CPU_PRESENT"] + 7, 1) as present:
            present[:] = b"\1"
        return cpu.run_to({target})

    return {
        "the transfer ends": transfer_ends,
        "the patience ends": patience_ends("fw_cfg_dma_wait"),
        "the patience for processors ends": patience_ends("cpus_wait"),
        "the host takes what is written": takes_what_is_written,
        "a non-maskable interrupt comes": interrupt,
        "the other processor starts": other_starts,
        "another processor answers late": answers_late,
    }[name]


def _moved(watch: Watch, copy: int, start: int, end: int) -> Watch:
    """What is told of the copy in RAM counts for the ROM, from where it was copied."""
    told = watch.instruction
    assert told is not None

    def on_instruction(address: int, size: int) -> None:
        told(address + start - copy if copy <= address < copy + end - start else address, size)

    return Watch(instruction=on_instruction)


def answer_cpuid(cpu: UnicornCpu, *, ebx: int, edx: int = CPUID_1_EDX_MTRR) -> None:
    """CPUID says this."""

    def answer(uc: Any, _data: object) -> int:
        for register, value in (("EAX", 0x600), ("EBX", ebx), ("ECX", 0), ("EDX", edx)):
            uc.reg_write(getattr(const, f"UC_X86_REG_{register}"), value)
        return 1

    cpu.uc.hook_add(unicorn.UC_HOOK_INSN, answer, None, 1, 0, const.UC_X86_INS_CPUID)
