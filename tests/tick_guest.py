"""Tiny kernels that live by interrupts: 32-bit, ring 0, an IDT, both 8259A, and a handler for each line that is wanted.

A handler does not return by iret, which not each KVM interprets: it drops the frame, and the code goes on behind its hlt.
"""

from pvhboot.shim.abi.devices import COM1_PORT, DEBUG_EXIT_PORT
from tiny import assembled, kernel_image

FIRST_VECTOR = 0x20  # of the first 8259A; the second one's follow
IDT, STACK = 0x80000, 0x90000
PIT_HZ = 1_193_182
_GATE = 8  # bytes; 0x8e00 is a present interrupt gate of ring 0


def interrupt_guest(handlers: dict[int, str], start: str) -> bytes:
    """A kernel with a handler (assembly) for each IRQ of `handlers`, the others masked. `start` is executed with interrupts
    off; then it halts with interrupts on, again and again. Handlers end with `jmp idle`."""
    gates = "".join(f"mov eax, offset on_{irq}\nmov edi, {IDT + (FIRST_VECTOR + irq) * _GATE}\ncall gate\n" for irq in handlers)
    mask = 0xFFFF & ~sum(1 << irq for irq in handlers) & ~(1 << 2 if any(irq > 7 for irq in handlers) else 0)
    bodies = "".join(f"on_{irq}:\nadd esp, 12\n{body}\n" for irq, body in handlers.items())
    words = ((0x20, 0x11), (0x21, FIRST_VECTOR), (0x21, 4), (0x21, 1), (0xA0, 0x11), (0xA1, FIRST_VECTOR + 8), (0xA1, 2))
    words += (0xA1, 1), (0x21, mask & 0xFF), (0xA1, mask >> 8)
    pics = "".join(f"mov al, {value}\nout {port}, al\n" for port, value in words)
    source = f"""
        mov     esp, {STACK}
        {gates}
        lidt    [idt]
        {pics}
        {start}
idle:
        sti
        hlt
        cli
        jmp     idle
gate:
        mov     word ptr [edi], ax
        mov     word ptr [edi + 2], cs
        mov     word ptr [edi + 4], 0x8e00
        shr     eax, 16
        mov     word ptr [edi + 6], ax
        ret
{bodies}
idt:    .word   0x7ff
        .long   {IDT}
"""
    return kernel_image(assembled(source))


def leave(value: str) -> str:
    """Assembly that ends the run with a value."""
    return f"mov eax, {value}\nmov dx, {DEBUG_EXIT_PORT}\nout dx, eax\ncli\nhlt\n"


END_OF_INTERRUPT = "mov al, 0x20\nout 0x20, al\n"


def start_ticks(hz: int) -> str:
    """Assembly that has channel 0 of the PIT tick."""
    divisor = PIT_HZ // hz
    return f"""
        mov     al, 0x34
        out     0x43, al
        mov     al, {divisor & 0xFF}
        out     0x40, al
        mov     al, {divisor >> 8}
        out     0x40, al
"""


def tick_guest(ticks: int, hz: int = 1000) -> bytes:
    """Counts the ticks of the PIT's channel 0, and leaves with their number."""
    on_tick = f"{END_OF_INTERRUPT}inc ebx\ncmp ebx, {ticks}\njne idle\n{leave('ebx')}"
    return interrupt_guest({0: on_tick}, f"{start_ticks(hz)}\nxor ebx, ebx")


def echo_guest() -> bytes:
    """Prints each byte that COM1 receives, by interrupt, and counts the interrupts; leaves with 0 at a `q`, and prints `!`
    when it is ready."""
    start = f"""
        xor     ebx, ebx
        mov     dx, {COM1_PORT + 2}
        mov     al, 7
        out     dx, al
        mov     dx, {COM1_PORT + 4}
        mov     al, 0x0b
        out     dx, al
        mov     dx, {COM1_PORT + 1}
        mov     al, 1
        out     dx, al
        mov     dx, {COM1_PORT}
        mov     al, 0x21
        out     dx, al
"""
    on_serial = f"""
        inc     ebx
more:
        mov     dx, {COM1_PORT + 2}
        in      al, dx
        test    al, 1
        jnz     served
        mov     dx, {COM1_PORT}
        in      al, dx
        out     dx, al
        cmp     al, 0x71
        jne     more
        {leave("0")}
served:
        {END_OF_INTERRUPT}
        jmp     idle
"""
    return interrupt_guest({4: on_serial}, start)
