"""What the rules look at when they say why a boot failed, and what they say."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pvhboot.loader.memory import ReadableMemory
from pvhboot.loader.plan import BootPlan
from pvhboot.loader.recording import Recording
from pvhboot.shim.abi.x86 import CR0_PE, CR0_PG, INSTRUCTION_MAX, Segment
from pvhboot.shim.blob import Blob
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MACHINES, low_rom_span, rom_span

from ..board import Board
from ..bus import Access
from ..check import VIOLATED, Finding
from ..engines.base import Cpu, Stop, Until, code_at
from ..handoff import Handoff
from ..instruction import Instruction, read_instruction
from ..places import Places
from ..reasons import FAULT, HANDOFF
from ..recent import Executed, History
from ..session import Outcome
from ..tables import Tables, read_tables


class Cause(NamedTuple):
    """Why a boot failed, probably: what it is called, why that is thought and what it does (whole sentences), what was seen (a
    line each), what to do about it, and which clauses of the check it explains."""

    title: str
    why: str
    evidence: tuple[str, ...]
    remedy: str
    clauses: tuple[str, ...] = ()


class Scene(NamedTuple):
    """A machine that has failed. `registers` and `segments` are the CPU's at the stop (empty: unknown), `code` the bytes there,
    decoded as code of `bits` bits (0: unknown); `memory` is physical (None: gone); `handoff`, `tables` and `findings` are those
    of the kernel's entry, None and empty if it was not reached. `accesses` are those to devices, as far as they are known;
    `console` is what COM1 has printed; `until` where the run was to end (None: a test drives it); `recording` is what the
    machine had in place of its default."""

    plan: BootPlan
    blob: Blob
    places: Places
    stop: Stop
    registers: Mapping[str, int]
    segments: Mapping[str, Segment]
    bits: int
    code: bytes
    memory: ReadableMemory | None
    handoff: Handoff | None
    tables: Tables | None
    findings: Sequence[Finding]
    history: History
    accesses: Sequence[Access]
    post_codes: Sequence[int]
    debug_console: bytes
    console: bytes
    until: Until | None = None
    recording: Recording | None = None

    @property
    def in_firmware(self) -> bool:
        """The kernel's entry was not reached."""
        return self.handoff is None

    @property
    def faulted(self) -> bool:
        """The CPU could not execute what was next."""
        return self.stop.reason == FAULT

    @property
    def known(self) -> bool:
        """There is a CPU to look at."""
        return bool(self.registers and self.segments)

    @property
    def protected(self) -> bool:
        """Protected mode is on."""
        return bool(self.registers and self.registers["cr0"] & CR0_PE)

    @property
    def violated(self) -> Mapping[str, str]:
        """What is said of each clause that the handoff breaks."""
        return {finding.clause: finding.detail for finding in self.findings if finding.status == VIOLATED}

    @property
    def instruction(self) -> Instruction | None:
        """That at the stop; None if it is unknown."""
        if not self.code or self.stop.rip is None or not self.bits:
            return None
        return read_instruction(self.code, self.stop.rip, self.bits, self.registers)

    def read(self, paddr: int, size: int) -> bytes | None:
        """Of physical memory; None where there is none. Without any, of the ROM as it was loaded."""
        try:
            if self.memory is not None:
                return self.memory.read(paddr, size)
        except BootError:  # no memory there, or none any more
            return None
        rom = rom_span(len(self.plan.rom))
        return self.plan.rom[paddr - rom.start :][:size] if rom.start <= paddr and paddr + size <= rom.end else None

    @property
    def has_memory(self) -> bool:
        """Its memory can be looked at still."""
        return self.memory is not None and self.read(self.plan.ram[0].start, 1) is not None

    def read_linear(self, linear: int, size: int) -> bytes | None:
        """The same by linear address, while paging is off."""
        return None if not self.registers or self.registers["cr0"] & CR0_PG else self.read(linear, size)

    def in_rom(self, address: int) -> bool:
        """Whether it lies in the ROM at the end of 4 GiB."""
        rom = rom_span(len(self.plan.rom))
        return rom.start <= address < rom.end

    def machines_with_rom_at(self, address: int) -> list[str]:
        """The machines on which the low copy of a ROM of this size lies there."""
        spans = ((spec.name, low_rom_span(spec, len(self.plan.rom))) for spec in MACHINES.values())
        return [name for name, span in spans if span is not None and span.start <= address < span.end]

    def at(self, address: int) -> str:
        """An address with its place, for evidence."""
        return located(self.places, address)

    def shown(self, executed: Executed) -> str:
        """An instruction with its place, for evidence."""
        return f"{self.at(executed.address)}: {executed.text}"

    def shown_at(self, address: int) -> str:
        """The instruction at an address with its place; the address alone if it is not among the last ones."""
        found = next((one for one in reversed(self.history.executed) if one.address == address), None)
        if found is not None:
            return self.shown(found)
        code = self.read_linear(address, 1) and self._code(address)
        if not code:
            return self.at(address)
        bits = 32 if self.protected and (self.segments["cs"].db if self.segments else True) else 16
        return f"{self.at(address)}: {read_instruction(code, address, bits, {}).text}"

    def _code(self, address: int) -> bytes:
        for size in range(INSTRUCTION_MAX, 0, -1):
            if data := self.read_linear(address, size):
                return data
        return b""


def counted(count: int, one: str, more: str) -> str:
    """A number of things."""
    return f"one {one}" if count == 1 else f"{count} {more}"


def located(places: Places, address: int) -> str:
    """An address with its place, if it has one."""
    place = places.locate(address)
    return f"{address:#x}" + (f" ({place})" if place else "")


def scene_of_outcome(outcome: Outcome, history: History, recording: Recording | None = None) -> Scene:
    """The end of a boot."""
    run, handoff = outcome.run, outcome.handoff
    memory = outcome.memory if outcome.memory is not None else None if handoff is None else handoff.memory
    return Scene(
        outcome.plan,
        outcome.blob,
        Places(outcome.plan, outcome.blob),
        run.stop,
        run.registers,
        run.segments,
        run.bits,
        run.code,
        memory,
        handoff,
        outcome.tables,
        outcome.findings,
        history,
        outcome.accesses or (),
        outcome.post_codes,
        outcome.debug_console,
        outcome.console,
        outcome.until,
        recording,
    )


def scene_of(
    cpu: Cpu,
    board: Board,
    blob: Blob,
    *,
    history: History = History(),  # noqa: B008 - a value
    handoff: Handoff | None = None,
    findings: Sequence[Finding] = (),
) -> Scene:
    """A CPU that stands, with its board: at its end, or wherever it has been driven to."""
    stop = cpu.stop or Stop(HANDOFF if handoff else "", "", cpu.linear_ip())
    return Scene(
        board.plan,
        blob,
        Places(board.plan, blob),
        stop,
        cpu.registers(),
        cpu.segments(),
        cpu.bits,
        b"" if stop.rip is None else code_at(cpu, board.memory, stop.rip),
        board.memory,
        handoff,
        None if handoff is None else read_tables(handoff),
        findings,
        history,
        board.bus.log,
        board.post_codes,
        bytes(board.debug_console),
        bytes(board.console),
    )
