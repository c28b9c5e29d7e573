"""The 8259A interrupt controllers, alone and as the pair of a PC, and their edge/level registers.

Source: see shim/abi/pic.py. A request on an input that is an edge goes away with the input, and whoever acknowledges it then is
told of the default input 7. Not modelled: buffered mode, the vectors of an 8080, level-triggered inputs other than by ICW1: no
device of a board has one. An access of 16 bits to the first edge/level register never reaches the second: in QEMU
(hw/intc/i8259.c) each is a device.
"""

from collections.abc import Callable
from typing import Final

from pvhboot.shim.abi import pic as abi

_ALL: Final = (1 << abi.PIC_INPUTS) - 1
_DEFAULT: Final = 7
_COMMAND_WORDS: Final = abi.PIC_ICW1 | abi.PIC_OCW3  # neither: OCW2


class Pic:
    """One controller: its two ports, its inputs. `output` is told each level of its own. `cascade`: the input behind which
    there is another controller, that follows its level."""

    def __init__(self, output: Callable[[bool], None] | None = None, cascade: int | None = None) -> None:
        self._output = output
        self._cascade = 0 if cascade is None else 1 << cascade
        self._base = 0
        self._mask = self._levels = 0
        self._awaited: list[Callable[[int], None]] = []  # who gets the next stores to the second port: they initialise
        self._reset(0)

    def _reset(self, icw1: int) -> None:
        self._level_triggered = _ALL if icw1 & abi.PIC_ICW1_LEVEL else self._cascade
        self._requests = self._levels & self._level_triggered
        self._in_service = 0
        self._lowest = abi.PIC_INPUTS - 1  # the input with the lowest priority
        self._auto_eoi = self._rotates = self._nested = self._mask_mode = False
        self._reads_in_service = self._polled = False

    @property
    def requested(self) -> bool:
        """The output: something is to be acknowledged."""
        return self._highest() is not None

    def set_input(self, number: int, level: bool) -> None:
        """An input goes high or low."""
        bit = 1 << number
        if level and (not self._levels & bit or self._level_triggered & bit):
            self._requests |= bit
        elif not level:
            self._requests &= ~bit
        self._levels = self._levels | bit if level else self._levels & ~bit
        self._update()

    def acknowledge(self) -> int:
        """The processor's INTA: the vector, base and input, of what is in service from now on."""
        number = self._serve()
        return self._base | (_DEFAULT if number is None else number)

    @property
    def next_is_cascade(self) -> bool:
        """What would be acknowledged now is the other controller's."""
        number = self._highest()
        return number is not None and bool(1 << number & self._cascade)

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """What was polled; requests or what is in service; the mask."""
        if self._polled:
            self._polled = False
            number = self._serve()
            return _DEFAULT if number is None else abi.PIC_POLL_REQUEST | number
        if offset:
            return self._mask
        return self._in_service if self._reads_in_service else self._requests

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """A word that initialises, the mask, or a command."""
        if offset:
            if self._awaited:
                self._awaited.pop(0)(value)
            else:
                self._mask = value
        elif value & abi.PIC_ICW1:
            self._initialise(value)
        elif value & _COMMAND_WORDS:
            self._choose(value)
        else:
            self._end(value & abi.PIC_OCW2_COMMAND, value & abi.PIC_OCW2_INPUT)
        self._update()

    def _initialise(self, icw1: int) -> None:
        self._mask = 0
        self._reset(icw1)
        words: list[tuple[bool, Callable[[int], None]]] = [
            (True, self._set_base),
            (not icw1 & abi.PIC_ICW1_SINGLE, lambda _cascade: None),
            (bool(icw1 & abi.PIC_ICW1_IC4), self._set_modes),
        ]
        self._awaited = [told for comes, told in words if comes]

    def _set_base(self, icw2: int) -> None:
        self._base = icw2 & abi.PIC_ICW2_BASE

    def _set_modes(self, icw4: int) -> None:
        self._auto_eoi = bool(icw4 & abi.PIC_ICW4_AUTO_EOI)
        self._nested = bool(icw4 & abi.PIC_ICW4_NESTED)

    def _choose(self, ocw3: int) -> None:
        self._polled = bool(ocw3 & abi.PIC_OCW3_POLL)
        if ocw3 & abi.PIC_OCW3_READ:
            self._reads_in_service = bool(ocw3 & abi.PIC_OCW3_READ_ISR)
        if ocw3 & abi.PIC_OCW3_SET_MASK_MODE:
            self._mask_mode = bool(ocw3 & abi.PIC_OCW3_MASK_MODE)

    def _end(self, command: int, number: int) -> None:
        """OCW2."""
        match command:
            case abi.PIC_ROTATE_IN_AUTO_EOI_ON | abi.PIC_ROTATE_IN_AUTO_EOI_OFF:
                self._rotates = command == abi.PIC_ROTATE_IN_AUTO_EOI_ON
            case abi.PIC_EOI | abi.PIC_ROTATE_ON_EOI:
                ended = self._first(self._in_service & ~self._mask if self._mask_mode else self._in_service)
                if ended is not None:
                    self._in_service &= ~(1 << ended)
                    if command == abi.PIC_ROTATE_ON_EOI:
                        self._lowest = ended
            case abi.PIC_SPECIFIC_EOI | abi.PIC_ROTATE_ON_SPECIFIC_EOI:
                self._in_service &= ~(1 << number)
                if command == abi.PIC_ROTATE_ON_SPECIFIC_EOI:
                    self._lowest = number
            case abi.PIC_SET_PRIORITY:
                self._lowest = number

    def _order(self, number: int) -> int:
        """0 for the input with the highest priority."""
        return (number - self._lowest - 1) % abi.PIC_INPUTS

    def _first(self, inputs: int) -> int | None:
        """Of some inputs that with the highest priority."""
        return min((number for number in range(abi.PIC_INPUTS) if inputs >> number & 1), key=self._order, default=None)

    def _highest(self) -> int | None:
        """The request that may interrupt what is in service."""
        request = self._first(self._requests & ~self._mask)
        if request is None:
            return None
        blocking = self._in_service
        if self._mask_mode:
            blocking &= ~self._mask
        if self._nested:
            blocking &= ~self._cascade
        served = self._first(blocking)
        return request if served is None or self._order(request) < self._order(served) else None

    def _serve(self) -> int | None:
        number = self._highest()
        if number is not None:
            bit = 1 << number
            if not self._level_triggered & bit:
                self._requests &= ~bit
            if not self._auto_eoi:
                self._in_service |= bit
            elif self._rotates:
                self._lowest = number
            self._update()
        return number

    def _update(self) -> None:
        if self._output is not None:
            self._output(self.requested)


class PicPair:
    """The two of a PC, the slave at an input of the master. `told` is called when the processor may have to be interrupted."""

    def __init__(self) -> None:
        self.told: Callable[[], None] | None = None
        self.master = Pic(self._update, cascade=abi.PIC_CASCADE)
        self.slave = Pic(lambda level: self.master.set_input(abi.PIC_CASCADE, level))

    @property
    def requested(self) -> bool:
        """The output to the processor."""
        return self.master.requested

    def set_line(self, number: int, level: bool) -> None:
        """IRQ 0 to 15."""
        pic = self.master if number < abi.PIC_INPUTS else self.slave
        pic.set_input(number % abi.PIC_INPUTS, level)

    def acknowledge(self) -> int:
        """The processor's INTA: the vector."""
        cascaded = self.master.next_is_cascade
        vector = self.master.acknowledge()
        return self.slave.acknowledge() if cascaded else vector

    def _update(self, level: bool) -> None:
        if level and self.told is not None:
            self.told()


class Elcr:
    """The byte that says which interrupts of a controller are level-triggered; `writable` are those that can be."""

    def __init__(self, writable: int) -> None:
        self._writable = writable
        self._levels = 0

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """A bit for each interrupt: 1 is level. As often as bytes are asked for."""
        return int.from_bytes(bytes((self._levels,)) * size, "little")

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """Byte after byte: the last one stays."""
        self._levels = value >> 8 * (size - 1) & self._writable
