"""The sanitizer: each load, store and fetch of a firmware, and what devices do to memory for it, held against whose that memory
is. It watches from the reset to the handoff.

It knows which bytes somebody has written, not what a value was made of: of a byte that nobody has written, it is the copying
that is told.
"""

from typing import Any, Final, NamedTuple

from pvhboot.loader.plan import BootPlan
from pvhboot.shim.abi.apic import IO_APIC, LOCAL_APIC
from pvhboot.shim.abi.chipset import F_SEGMENT_END
from pvhboot.shim.abi.pvh import XEN_HVM_START_MAGIC_VALUE
from pvhboot.shim.abi.x86 import CR0_PG, INSTRUCTION_MAX, PAGE_SIZE
from pvhboot.shim.blob import Blob, Place
from pvhboot.shim.errors import NoMemoryError
from pvhboot.shim.listing import ListingLine
from pvhboot.shim.machines import low_rom_span, rom_span

from .board import Board
from .bus import READ, WRITE, Access
from .disassembly import decode, is_input
from .engines.base import Cpu, Watch, code_at
from .owners import Area, Owners, Right
from .places import Places
from .shadow import Shadow
from .tables import read_tables

STORE: Final = "store"  # an instruction writes what is not the firmware's to write
TRANSFER: Final = "transfer"  # so does a device that it has started, or an ins
CLOBBER: Final = "clobber"  # either changes what is right: a byte of the kernel or of a module
STACK: Final = "stack"  # something is pushed to where no stack is
UNWRITTEN: Final = "unwritten"  # an instruction, or a device, reads what nobody has written
NOWHERE: Final = "nowhere"  # an access to an address where there is neither memory nor a device
EXECUTION: Final = "execution"  # the next instruction is none of the firmware's

_RETURNS: Final = 64  # words of the stack among which the way back is looked for
_WORD: Final = 4  # bytes
_CALLS: Final = (5, 2, 3, 6, 7)  # bytes that a call has, the likely ones first
_PUSHES: Final = ("push", "call", "enter")
_SHOWN: Final = 8  # bytes
_APICS: Final = (LOCAL_APIC, IO_APIC)  # that a board has none is not the firmware's fault


class Trespass(NamedTuple):
    """What an instruction does wrong, `times` times. The first time it was `size` bytes at the physical address `paddr`, and
    `detail` says how it was; all of them were in [start, end).

    `kind` is one of the words above, `owner` whose memory it is ("": nobody's). `ip` is the linear address of the instruction,
    of an execution that of the jump; `text` and `place` are the instruction, and its label and source line. `caller` is where
    its routine was called, as far as the stack tells.
    """

    kind: str
    owner: str
    detail: str
    paddr: int
    size: int
    start: int
    end: int
    times: int
    ip: int
    text: str
    place: Place | None
    caller: Place | None

    def to_json(self) -> dict[str, Any]:
        """As plain data, addresses as numbers."""
        places = {"place": self.place, "caller": self.caller}
        return {**self._asdict(), **{name: None if place is None else str(place) for name, place in places.items()}}


class Sanitizer:
    """A Watcher for one run. `findings` are in the order in which they first happened."""

    def __init__(self, plan: BootPlan, blob: Blob) -> None:
        self._plan, self._blob = plan, blob
        self._places = Places(plan, blob)
        self._found: dict[tuple[str, int, str], Trespass] = {}
        self._shadow = Shadow()
        self._ip = 0  # of the instruction that is executed, or of the last one that was the firmware's
        self._astray = self._over = False
        # Linear addresses of instructions that are the firmware's: by its listing, or, of another's, those that were looked at;
        # and where the areas of RAM start that another's has moved to.
        self._code: set[int] = set()
        self._moved: set[int] = set()
        self._texts: dict[int, str] = {}  # of instructions, by address
        self._frames: dict[int, int] = {}  # of code: physical addresses by number of the page

    @property
    def findings(self) -> tuple[Trespass, ...]:
        """What was seen until now."""
        return tuple(self._found.values())

    def start(self, cpu: Cpu, board: Board) -> Watch:
        """See Watcher. BootError of `Cpu.watch` if that engine does not see what an instruction reads and writes."""
        self._cpu, self._board = cpu, board
        self._owners = Owners(self._plan, self._blob, board.memory)
        rom = rom_span(len(self._plan.rom))
        self._shadow.add(rom.start, rom.size)
        for claim in self._owners.claims:
            if claim.payload is not None and claim.payload.placed:
                self._shadow.add(claim.start, claim.end - claim.start)
        if self._owners.is_known:
            self._code |= {line.address for line in self._blob.listing if line.is_code}
            if (low := low_rom_span(self._plan.spec, rom.size)) is not None:
                self._code |= {address - rom.end + low.end for address in self._code}
        board.memory.fetch_listeners.append(self._on_fetch)
        board.bus.listeners.append(self._on_access)
        told = self._on_instruction, self._on_load, self._on_store, self._on_transfer, self._on_end
        return Watch(*told, to_handoff=True)

    def _on_end(self) -> None:
        if not self._over and self._cpu.linear_ip() == self._board.entry:
            self._hand_over()
        self._board.memory.fetch_listeners.remove(self._on_fetch)
        self._board.bus.listeners.remove(self._on_access)

    def _on_instruction(self, address: int, size: int) -> None:
        if address in self._code:
            self._ip, self._astray = address, False
        elif not self._over:
            if address == self._board.entry:
                self._hand_over()
            elif self._astray and self._owners.is_known:
                pass  # until it comes back
            elif (paddr := self._translate(address)) is not None and (area := self._owners.find(paddr)) is not None:
                self._look_at(address, paddr, min(size, INSTRUCTION_MAX), area)

    def _translate(self, address: int) -> int | None:
        """The physical address of an instruction; a page that code was executed in is taken to stay where it is mapped."""
        page, offset = divmod(address, PAGE_SIZE)
        if page not in self._frames:
            if (frame := self._cpu.translate(page * PAGE_SIZE)) is None:
                return None
            self._frames[page] = frame
        return self._frames[page] + offset

    def _hand_over(self) -> None:
        """At the kernel's entry: it will read all that it is told of. What is no start_info tells nothing: see the check."""
        self._over = True
        handoff = self._cpu.handoff()
        tables = read_tables(handoff)
        if tables.start_info is None or tables.start_info.magic != XEN_HVM_START_MAGIC_VALUE:
            return
        for name, start, end in tables.spans(handoff.registers["ebx"]):
            for area, paddr, size in self._owners.parts(start, end - start):
                if not area.rom and not self._shadow.holds(paddr, size):
                    missing = [paddr - start + at for at in self._shadow.missing(paddr, size)]
                    detail = f"the kernel is handed {name}, {_some(missing, end - start)}, at {start:#x} in {area}"
                    self._report(UNWRITTEN, name, start, end - start, detail, self._ip)

    def _look_at(self, address: int, paddr: int, size: int, area: Area) -> None:
        """At an instruction that is not known to be the firmware's."""
        theirs = not self._owners.is_known
        written = self._shadow.holds(paddr, size)
        what = "which nobody has written"
        if area.rom:
            what = _what_else(self._line(address))
        elif area.payload is not None and written:
            what = f"which is entered at {self._board.entry:#x}"
        elif written:
            what = "which it has written itself"
        moved = theirs and written and not area.rom and area.payload is None
        told = moved and (area.start in self._moved or self._is_shadowed(paddr, size))
        if not self._astray and not told and not (theirs and area.rom):
            detail = f"it goes on at {address:#x} in {area}, {what}"
            self._report(EXECUTION, area.name, paddr, size, detail, self._ip or address)
        # Another's firmware may have moved to RAM, once that is said: what it does there is looked at like all else.
        self._astray = not (moved or (theirs and area.rom))
        if moved:
            self._moved.add(area.start)
        if not self._astray:
            self._code.add(address)
            self._ip = address

    def _is_shadowed(self, paddr: int, size: int) -> bool:
        """Whether the code is the ROM's, and where a PC has the end of its ROM."""
        rom = self._plan.rom
        at = len(rom) - F_SEGMENT_END + paddr
        return 0 <= at < len(rom) and self._board.memory.read(paddr, size) == rom[at : at + size]

    def _on_load(self, paddr: int, size: int) -> None:
        if not self._shadow.holds(paddr, size) and not self._over and not self._astray:
            self._read(paddr, size, "")

    def _on_fetch(self, paddr: int, data: bytes) -> None:
        if not self._over and not self._astray:
            self._read(paddr, len(data), "a device reads ")

    def _read(self, paddr: int, size: int, who: str) -> None:
        for area, start, count in self._owners.parts(paddr, size):
            if not area.rom and (missing := self._shadow.missing(start, count)):
                detail = f"{who}{_some([start - paddr + at for at in missing], size)}, at {paddr:#x} in {area}"
                self._report(UNWRITTEN, area.name, paddr, size, detail, self._ip)

    def _on_store(self, paddr: int, size: int, value: int) -> None:
        if self._over or self._astray:
            return
        area = self._owners.find(paddr)
        if area is not None and area.pushes and area.payload is None and paddr + size <= area.end:
            self._shadow.add(paddr, size)
            return
        inputs = is_input(self._text_now())
        if inputs and not value:
            self._shadow.add(paddr, size)
            return
        data = value.to_bytes(size, "little")
        for part, start, count in self._owners.parts(paddr, size):
            self._written(TRANSFER if inputs else STORE, part, start, data[start - paddr :][:count], size)

    def _on_transfer(self, paddr: int, size: int) -> None:
        if not self._over and not self._astray:
            for area, start, count in self._owners.parts(paddr, size):
                self._written(TRANSFER, area, start, self._board.memory.read(start, count), size)

    def _on_access(self, access: Access) -> None:
        kind, paddr, size, _, device = access
        if kind not in (READ, WRITE) or device or self._over or self._astray or paddr & -PAGE_SIZE in _APICS:
            return
        if self._owners.find(paddr) is None:
            self._report(NOWHERE, "", paddr, size, f"a {kind} of {_bytes(size)} at {paddr:#x}, where nothing is", self._ip)

    def _written(self, kind: str, area: Area, paddr: int, data: bytes, whole: int) -> None:
        """What an instruction is about to write, or a device has written, to one area, of `whole` bytes."""
        size, payload = len(data), area.payload
        expected = data if payload is None else payload.expected(paddr, size)
        right = area.stores if kind == STORE else Right.ANY if area.transfers else Right.NONE
        if payload is not None and expected in (None, data):
            pass  # it is being loaded
        elif expected is not None and (lost := self._lost(paddr, data, expected)) is not None:
            was, now = (part[lost : lost + _SHOWN].hex(" ") for part in (expected, data))
            detail = f"{was} at {paddr + lost:#x} in {area} becomes {now}, by {_share(size, whole)} at {paddr:#x}"
            self._report(CLOBBER, area.name, paddr, size, detail, self._ip)
        elif right is Right.NONE or (right is Right.MEND and not self._shadow.holds(paddr, size)):
            detail = f"{_share(size, whole)} at {paddr:#x} in {area}{self._behind(area, paddr)}"
            self._report(kind, area.name, paddr, size, detail, self._ip)
        elif kind == STORE and not area.pushes and self._text_now().startswith(_PUSHES):
            self._report(STACK, area.name, paddr, size, f"{_bytes(size)} pushed to {paddr:#x} in {area}", self._ip)
        self._shadow.add(paddr, size)

    def _lost(self, paddr: int, data: bytes, expected: bytes) -> int | None:
        """The first byte, as offset, that was right and is not any more."""
        for chunk in range(0, len(data), PAGE_SIZE):
            if data[chunk : chunk + PAGE_SIZE] != expected[chunk : chunk + PAGE_SIZE]:
                for at in range(chunk, min(chunk + PAGE_SIZE, len(data))):
                    if data[at] != expected[at] and self._shadow.has(paddr + at):
                        return at
        return None

    def _text_now(self) -> str:
        """Of the instruction that is executed."""
        if self._ip not in self._texts:
            self._texts[self._ip] = self._text(self._ip)
        return self._texts[self._ip]

    def _behind(self, area: Area, paddr: int) -> str:
        """Of free memory: whose ends in front of it."""
        owned = self._owners.before(paddr) if area.free else None
        if owned is None or (distance := paddr - owned.end) >= PAGE_SIZE:
            return ""
        return f", {_bytes(distance)} behind {owned}" if distance else f", directly behind {owned}"

    def _report(self, kind: str, owner: str, paddr: int, size: int, detail: str, ip: int) -> None:
        key = kind, 0 if kind == STACK else ip, owner  # a stack at a wrong place is one mistake, whoever pushes
        if (before := self._found.get(key)) is not None:
            start, end = min(before.start, paddr), max(before.end, paddr + size)
            self._found[key] = before._replace(start=start, end=end, times=before.times + 1)
            return
        place, text, caller = self._places.locate(ip), self._text(ip), self._caller()
        self._found[key] = Trespass(kind, owner, detail, paddr, size, paddr, paddr + size, 1, ip, text, place, caller)

    def _text(self, ip: int) -> str:
        """An instruction: as its source has it, or disassembled."""
        line = self._line(ip)
        return decode(code_at(self._cpu, self._board.memory, ip), ip, self._cpu.bits).text if line is None else line.text

    def _line(self, address: int) -> ListingLine | None:
        lines = self._blob.listing
        return next((line for line in lines if line.address <= address < line.address + len(line.data)), None)

    def _caller(self) -> Place | None:
        """In 32-bit code without paging: the first word on the stack that has a call in front of it."""
        cpu = self._cpu
        if cpu.bits != _WORD * 8 or cpu.registers()["cr0"] & CR0_PG:
            return None
        top = cpu.registers()["esp"] + cpu.segments()["ss"].base
        for at in range(top, top + _RETURNS * _WORD, _WORD):
            back = int.from_bytes(self._seen(at, _WORD), "little")
            if self._is_code(back):
                for size in _CALLS:
                    found = decode(self._seen(back - size, size), back - size, cpu.bits)
                    if len(found.data) == size and found.text.startswith("call"):
                        return self._places.locate(back - size)
        return None

    def _is_code(self, linear: int) -> bool:
        area = self._owners.find(linear)
        return area is not None and (area.rom or area.start in self._moved)

    def _seen(self, linear: int, size: int) -> bytes:
        """What lies at an address where paging is off; nothing if some of it is no memory."""
        try:
            return self._board.memory.read(linear, size)
        except NoMemoryError:
            return b""


def _bytes(number: int) -> str:
    return "1 byte" if number == 1 else f"{number} bytes"


def _share(number: int, whole: int) -> str:
    return _bytes(number) if number == whole else f"{number} of {_bytes(whole)}"


def _some(missing: list[int], size: int) -> str:
    """Which of so many bytes nobody has written, as offsets."""
    if len(missing) == size:
        return f"{_bytes(size)} that nobody has written"
    runs: list[list[int]] = []
    for at in missing:
        if runs and runs[-1][1] == at - 1:
            runs[-1][1] = at
        else:
            runs.append([at, at])
    shown = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs[:_SHOWN])
    return f"{_bytes(size)}, of which nobody has written {shown}{', …' if len(runs) > _SHOWN else ''}"


def _what_else(line: ListingLine | None) -> str:
    """What an address of the ROM is, if it is not that of an instruction."""
    if line is None:
        return "where no code is"
    what = "within the instruction" if line.is_code else "which is data"
    return f"{what} ({line.file}:{line.line}: {line.text})"
