"""Delivers exceptions, software interrupts and interrupts on Unicorn, which leaves that to who uses it: through the guest's IDT
(in real mode its table of vectors) as the processor would.

Intel SDM volume 3A, chapter 7: gates, privilege changes with the stacks of the TSS and its IST, error codes, stack frames,
double and triple faults. Not as hardware: no task gates, no check of a frame against its segment's limit, no shadow stacks;
code that a frame overwrites is executed as it was.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

from pvhboot.shim.abi import interrupts as abi
from pvhboot.shim.abi import paging, x86

from ..paging import LinearMemory, PageFaultError
from .unicorn_context import HiddenSegment, LiveContext

_CLEARED: Final = x86.EFLAGS_TF | x86.EFLAGS_NT | x86.EFLAGS_RF | x86.EFLAGS_VM
_CLEARED_IN_REAL_MODE: Final = x86.EFLAGS_TF | x86.EFLAGS_AC | x86.EFLAGS_RF
_USER: Final = 3
_VM86_SEGMENTS: Final = ("gs", "fs", "ds", "es")
_NULL: Final = HiddenSegment(0, 0, 0, 0)
_MASK: Final = {2: 0xFFFF, 4: 0xFFFF_FFFF, 8: 0xFFFF_FFFF_FFFF_FFFF}  # by bytes
_CANONICAL_BITS: Final = 48  # of a linear address: those above are as the highest of them


class Event(NamedTuple):
    """What is to be delivered: a vector, and the error code of one that has it. `length`: of int n, int3 or into, that has been
    executed; 0 for what the processor itself raises. `external`: an interrupt, from outside of the processor."""

    vector: int
    error_code: int = 0
    length: int = 0
    external: bool = False

    @property
    def is_exception(self) -> bool:
        """The processor itself raises it: it may have an error code, and what it comes to may be a double fault."""
        return not self.length and not self.external

    @property
    def name(self) -> str:
        """For a person."""
        if self.external:
            return f"interrupt {self.vector:#x}"
        if self.length and self.vector not in (abi.BP, abi.OF):
            return f"int {self.vector:#x}"
        return abi.VECTOR_NAMES.get(self.vector, f"exception {self.vector:#x}")


class UndeliverableError(Exception):
    """No handler can be entered: why, in words."""


class _Fault(Exception):
    """On the way to a handler the processor comes to another exception: which, why, and what CR2 becomes."""

    def __init__(self, event: Event, why: str, address: int | None = None) -> None:
        super().__init__(event, why)
        self.event, self.why, self.address = event, why, address


class _Gate(NamedTuple):
    selector: int
    offset: int
    masks: bool  # interrupts
    size: int  # bytes of a push
    ist: int


def deliver(event: Event, cpu: LiveContext, eflags: int, memory: LinearMemory) -> None:
    """Enters the handler of an event: pushes the frame and changes `cpu` as the processor does. `eflags` are all of them.

    An exception on the way is delivered in its place, or the two as a double fault. UndeliverableError if even that fails (a
    triple fault), or if there is but an empty vector of real mode: `cpu` is of no use then.
    """
    began = ""
    while True:
        try:
            return _Delivery(event, cpu, eflags, memory).run()
        except _Fault as fault:
            began = began or fault.why
            if event.vector == abi.DF and event.is_exception:
                raise UndeliverableError(f"{began}: a triple fault") from None
            if fault.address is not None:
                cpu.cr2 = fault.address
            cpu.rip -= event.length  # what int n comes to is a fault of int n
            event = _combined(event, fault.event)


def _combined(first: Event, second: Event) -> Event:
    """SDM volume 3A, table 7-5."""
    if first.is_exception:
        contributory = second.vector in abi.CONTRIBUTORY
        if first.vector in abi.CONTRIBUTORY and contributory:
            return Event(abi.DF)
        if first.vector in abi.PAGE_FAULTS and (contributory or second.vector in abi.PAGE_FAULTS):
            return Event(abi.DF)
    return second


def _is_canonical(address: int) -> bool:
    return (address + (1 << _CANONICAL_BITS - 1) & _MASK[8]) < 1 << _CANONICAL_BITS


class _Delivery:
    """One attempt to enter a handler."""

    def __init__(self, event: Event, cpu: LiveContext, eflags: int, memory: LinearMemory) -> None:
        self._event, self._cpu, self._eflags, self._memory = event, cpu, eflags, memory
        self._long = bool(cpu.efer & paging.EFER_LMA)

    def run(self) -> None:
        try:
            if self._cpu.cr0 & x86.CR0_PE:
                self._enter(self._gate())
            else:
                self._enter_in_real_mode()
        except PageFaultError as fault:
            why = f"its delivery meets a page fault at {fault.address:#x}"
            raise _Fault(Event(abi.PF, fault.error_code), why, fault.address) from None

    def _fail(self, vector: int, code: int, why: str) -> NoReturn:
        """`code` may be a selector, whose privilege level is no part of an error code."""
        external = 0 if self._event.length else abi.ERROR_EXT
        raise _Fault(Event(vector, code & ~x86.SELECTOR_RPL | external), why)

    def _fail_at_gate(self, vector: int, why: str) -> NoReturn:
        external = 0 if self._event.length else abi.ERROR_EXT
        code = self._event.vector << abi.ERROR_INDEX_SHIFT | abi.ERROR_IDT | external
        raise _Fault(Event(vector, code), f"gate {self._event.vector} of the IDT {why}")

    def _gate(self) -> _Gate:
        vector, size = self._event.vector, abi.GATE64_SIZE if self._long else abi.GATE_SIZE
        table = self._cpu.segment("idtr")
        if vector * size + size - 1 > table.limit:
            self._fail_at_gate(abi.GP, f"lies beyond the limit {table.limit:#x}")
        data = self._memory.read(table.base + vector * size, size)
        low, high = struct.unpack_from("<II", data)
        gate, offset = HiddenSegment(low >> 16, 0, 0, high), low & 0xFFFF | high & 0xFFFF_0000
        narrow = gate.type in (abi.GATE_INTERRUPT16, abi.GATE_TRAP16)
        known = gate.type in (abi.GATE_INTERRUPT, abi.GATE_TRAP) or ((narrow or gate.type == abi.GATE_TASK) and not self._long)
        if gate.has(x86.DESC_S) or not known:
            self._fail_at_gate(abi.GP, "is neither an interrupt nor a trap gate" if any(data) else "is empty")
        if self._event.length and gate.dpl < self._cpu.cpl:
            self._fail_at_gate(abi.GP, f"is not for privilege level {self._cpu.cpl}")
        if not gate.has(x86.DESC_P):
            self._fail_at_gate(abi.NP, "is not present")
        if gate.type == abi.GATE_TASK:
            raise UndeliverableError(f"gate {vector} of the IDT is a task gate, and this engine switches no tasks")
        masks = gate.type in (abi.GATE_INTERRUPT, abi.GATE_INTERRUPT16)
        if self._long:
            offset |= int.from_bytes(data[8:12], "little") << 32
            return _Gate(gate.selector, offset, masks, abi.GATE_BYTES_64, high & abi.GATE_IST_MASK)
        if narrow:
            return _Gate(gate.selector, offset & 0xFFFF, masks, abi.GATE_BYTES_16, 0)
        return _Gate(gate.selector, offset, masks, abi.GATE_BYTES_32, 0)

    def _table(self, selector: int) -> HiddenSegment:
        return self._cpu.segment("ldtr" if selector & x86.SELECTOR_LDT else "gdtr")

    def _descriptor(self, selector: int, vector: int) -> HiddenSegment:
        """What a selector names; `vector` is the exception if it names nothing."""
        table, at = self._table(selector), selector & ~(x86.SELECTOR_RPL | x86.SELECTOR_LDT)
        if at + x86.DESC_SIZE - 1 > table.limit:
            self._fail(vector, selector, f"selector {selector:#x} lies beyond its table")
        low, high = struct.unpack("<II", self._memory.read(table.base + at, x86.DESC_SIZE))
        segment = HiddenSegment(
            selector, low >> 16 | (high & 0xFF) << 16 | high & 0xFF00_0000, low & 0xFFFF | high & 0xF_0000, high
        )
        return segment._replace(limit=(segment.limit + 1) * x86.PAGE_SIZE - 1) if segment.has(x86.DESC_G) else segment

    def _loaded(self, segment: HiddenSegment) -> HiddenSegment:
        """A segment as it is once it has been loaded: accessed."""
        if segment.type & x86.TYPE_ACCESSED:
            return segment
        marked = segment.attributes | x86.TYPE_ACCESSED << x86.DESC_TYPE_SHIFT - x86.ATTRIBUTE_SHIFT
        at = self._table(segment.selector).base + (segment.selector & ~(x86.SELECTOR_RPL | x86.SELECTOR_LDT)) + 4
        self._memory.write(at, marked.to_bytes(4, "little"))
        return segment._replace(attributes=marked)

    def _code(self, selector: int) -> HiddenSegment:
        """The code segment that a gate names."""
        if not selector & ~x86.SELECTOR_RPL:
            self._fail(abi.GP, 0, f"gate {self._event.vector} of the IDT has a null selector")
        code, cpl = self._descriptor(selector, abi.GP), self._cpu.cpl
        if not code.has(x86.DESC_S) or not code.type & x86.TYPE_CODE or code.dpl > cpl:
            self._fail(abi.GP, selector, f"selector {selector:#x} is no code that privilege level {cpl} may enter")
        if not code.has(x86.DESC_P):
            self._fail(abi.NP, selector, f"the code segment {selector:#x} is not present")
        if self._long and (not code.has(x86.DESC_L) or code.has(x86.DESC_DB)):
            self._fail(abi.GP, selector, f"selector {selector:#x} is no 64-bit code")
        return code

    def _task_state(self, offset: int, size: int) -> bytes:
        task = self._cpu.segment("tr")
        if offset + size - 1 > task.limit:
            self._fail(abi.TS, task.selector, f"the TSS ends before the stack that it should have at {offset:#x}")
        return self._memory.read(task.base + offset, size)

    def _stack_of(self, level: int) -> tuple[HiddenSegment, int]:
        """SS and ESP of a privilege level, from the TSS."""
        wide = self._cpu.segment("tr").type & abi.TSS_TYPE_32_BIT
        first, entry = (abi.TSS32_ESP0, struct.Struct("<IHH")) if wide else (abi.TSS16_SP0, struct.Struct("<HH"))
        pointer, selector, *_ = entry.unpack(self._task_state(first + level * entry.size, entry.size))
        if not selector & ~x86.SELECTOR_RPL:
            self._fail(abi.TS, 0, f"the TSS has no stack segment for privilege level {level}")
        stack = self._descriptor(selector, abi.TS)
        data = stack.has(x86.DESC_S) and stack.type & (x86.TYPE_CODE | x86.TYPE_WRITABLE) == x86.TYPE_WRITABLE
        if not data or selector & x86.SELECTOR_RPL != level or stack.dpl != level:
            self._fail(abi.TS, selector, f"selector {selector:#x} in the TSS is no stack of privilege level {level}")
        if not stack.has(x86.DESC_P):
            self._fail(abi.SS, selector, f"the stack segment {selector:#x} in the TSS is not present")
        return stack, pointer

    def _enter(self, gate: _Gate) -> None:
        cpu, code = self._cpu, self._code(gate.selector)
        level = cpu.cpl if code.type & x86.TYPE_CONFORMING else code.dpl
        if self._eflags & x86.EFLAGS_VM and level:
            self._fail(abi.GP, gate.selector, f"the code segment {gate.selector:#x} leads nobody out of VM86 mode")
        inner = level < cpu.cpl
        pointer, loaded = self._push_long(gate, inner, level) if self._long else self._push_protected(gate, inner, level)
        loaded["cs"] = self._loaded(code)._replace(selector=gate.selector & ~x86.SELECTOR_RPL | level)
        cpu.eflags &= ~(_CLEARED | (x86.EFLAGS_IF if gate.masks else 0))
        cpu.load_segments(loaded, level)
        cpu.rsp, cpu.rip = pointer, gate.offset

    def _push_long(self, gate: _Gate, inner: bool, level: int) -> tuple[int, dict[str, HiddenSegment]]:
        """Pushes the frame; RSP, and the segment registers that change with it."""
        cpu, top = self._cpu, self._cpu.rsp
        loaded: dict[str, HiddenSegment] = {}
        if gate.ist:
            top = int.from_bytes(self._task_state(abi.TSS64_IST1 + 8 * (gate.ist - 1), 8), "little")
        elif inner:
            top = int.from_bytes(self._task_state(abi.TSS64_RSP0 + 8 * level, 8), "little")
        if inner or gate.ist:
            loaded["ss"] = HiddenSegment(level, 0, 0, level << x86.DESC_DPL_SHIFT - x86.ATTRIBUTE_SHIFT)
        top &= -abi.GATE64_STACK_ALIGN
        if not _is_canonical(top - 1):
            self._fail(abi.SS, 0, f"the stack at {top:#x} is not canonical")
        if not _is_canonical(gate.offset):
            self._fail(abi.GP, 0, f"the handler at {gate.offset:#x} is not canonical")
        values = [cpu.segment("ss").selector, cpu.rsp, *self._frame()]
        return self._push(values, gate.size, top, 0, _MASK[8], level), loaded

    def _push_protected(self, gate: _Gate, inner: bool, level: int) -> tuple[int, dict[str, HiddenSegment]]:
        """The same with gates and stacks of 16 and 32 bits."""
        cpu, stack = self._cpu, self._cpu.segment("ss")
        pointer, values = cpu.rsp, self._frame()
        loaded: dict[str, HiddenSegment] = {}
        if inner:
            values = [stack.selector, cpu.rsp, *values]
            if self._eflags & x86.EFLAGS_VM:
                values = [*(cpu.segment(name).selector for name in _VM86_SEGMENTS), *values]
                loaded = dict.fromkeys(_VM86_SEGMENTS, _NULL)
            stack, pointer = self._stack_of(level)
            loaded["ss"] = stack = self._loaded(stack)
        mask = _MASK[4 if stack.has(x86.DESC_DB) else 2]
        pushed = self._push(values, gate.size, pointer, stack.base, mask, level)
        return pointer & ~mask & _MASK[4] | pushed, loaded

    def _enter_in_real_mode(self) -> None:
        cpu, vector = self._cpu, self._event.vector
        table, at = cpu.segment("idtr"), vector * abi.REAL_VECTOR_SIZE
        if at + abi.REAL_VECTOR_SIZE - 1 > table.limit:
            self._fail_at_gate(abi.GP, f"lies beyond the limit {table.limit:#x}")
        offset, selector = struct.unpack("<HH", self._memory.read(table.base + at, abi.REAL_VECTOR_SIZE))
        if not offset and not selector:
            raise UndeliverableError(f"vector {vector} of real mode is empty")
        values = [self._eflags, cpu.segment("cs").selector, cpu.rip]
        pointer = self._push(values, abi.GATE_BYTES_16, cpu.rsp, cpu.segment("ss").base, _MASK[2], 0)
        cpu.eflags &= ~(_CLEARED_IN_REAL_MODE | x86.EFLAGS_IF)
        cpu.load_segments({"cs": cpu.segment("cs")._replace(selector=selector, base=selector << 4)}, 0)
        cpu.rsp, cpu.rip = cpu.rsp & ~_MASK[2] | pointer, offset

    def _frame(self) -> list[int]:
        """EFLAGS, CS, EIP, and the error code. RF: SDM volume 3B, 18.3.1.1."""
        event, cpu, eflags = self._event, self._cpu, self._eflags
        if event.length:
            eflags &= ~x86.EFLAGS_RF
        elif event.is_exception and event.vector not in abi.TRAPS_AND_ABORTS:
            eflags |= x86.EFLAGS_RF
        frame = [eflags, cpu.segment("cs").selector, cpu.rip]
        return [*frame, event.error_code] if event.vector in abi.HAS_ERROR_CODE and event.is_exception else frame

    def _push(self, values: Sequence[int], size: int, pointer: int, base: int, mask: int, level: int) -> int:
        """The stack pointer behind the last value, as far as `mask` has it."""
        for value in values:
            pointer = pointer - size & mask
            data = (value & _MASK[size]).to_bytes(size, "little")
            self._memory.write(base + pointer & _MASK[8], data, level == _USER)
        return pointer
