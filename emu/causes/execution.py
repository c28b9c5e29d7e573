"""Rules on where a CPU has gone: into memory without code, or to an exception that nobody handles."""

from typing import Final

from pvhboot.shim.abi import x86
from pvhboot.shim.abi.interrupts import BP, DE, GP, NP, OF, PF, SS, TS, UD, VECTOR_NAMES

from ..instruction import REGISTER, Instruction
from ..reasons import LIMIT, RESET, UNCLAIMED
from ..recent import Jump
from .loops import endless_loop, halted, last_words
from .scene import Cause, Scene

_ZEROS: Final = b"\0\0"  # add [eax], al
_ZEROS_MIN: Final = 4  # instructions in a row
_AFTER_SWITCH: Final = 2  # of the last instructions: the switch, and the one that faults
_BIOS_CALLS: Final = range(0x10, 0x1B)  # video, memory, disks … clock
_PUSHES: Final = ("push", "call", "pusha", "enter", "int")
_TOP: Final = 0xFFFFFF00  # where a stack is that was 0 and has wrapped

_WHAT: Final = {
    DE: ("a division by zero, or one whose quotient does not fit", "look at the divisor"),
    BP: ("int3", "there is no debugger in the guest: take it out"),
    OF: ("into, with OF set", "look at the sum in front of it"),
    UD: ("bytes that are no instruction, or one that this mode or CPU does not have", "look at how the CPU came there"),
    TS: ("a task state segment that cannot be used", "look at the TSS and its descriptor"),
    NP: ("a descriptor that is not present", "look at the descriptor"),
    SS: ("the stack's segment", "look at ss and esp"),
    GP: ("something that this privilege level, segment or register does not allow", "look at the operands and the segments"),
    PF: ("an address that paging does not map, or not for this access", "look at the page tables and the address"),
}


def missing_low_rom(scene: Scene) -> Cause | None:
    """Zeros are executed where other machines have a copy of the ROM, and this one has RAM."""
    slide, name = scene.history.slide, scene.plan.spec.name
    in_real_mode = scene.known and not scene.protected  # then it is the far jump that is told
    others = [] if slide is None else scene.machines_with_rom_at(slide.target)
    if slide is None or in_real_mode or not others or name in others:
        return None
    return Cause(
        f"zeros are executed from {slide.target:#x} on, where the machine {name} has no ROM",
        f"The firmware expects its copy below 1 MiB, as on {', '.join(others)}. {name} has empty RAM there, and the CPU "
        "runs through it, and through all that is behind.",
        (f"the jump that led there: {scene.shown_at(slide.origin)}, to {slide.target:#x}",),
        f"boot it on the machine that it is for: --machine {', '.join(others)}?",
        tuple(scene.violated),
    )


def stack_in_rom(scene: Scene) -> Cause | None:
    """Pushes that go to the ROM: the stack was never set up, or wrongly."""
    if not scene.in_firmware:
        return None
    stores = [(access.address, instruction) for access, instruction in scene.history.rom_stores]
    stores += [(store.paddr, store.instruction) for store in scene.history.stores if scene.in_rom(store.paddr)]
    for address, instruction in stores:
        pushing = scene.shown_at(instruction)
        if pushing.rpartition(": ")[2].startswith(_PUSHES):
            never = address >= _TOP
            return Cause(
                "the stack was never set up" if never else "the stack lies in the ROM",
                f"A push went to {address:#x}, which is in the ROM"
                + (": esp was 0 or near it, as after a reset, and has wrapped. " if never else ". ")
                + "What is pushed there is lost, and a ret goes to whatever the ROM holds.",
                (pushing, f"stored to {address:#x}"),
                "load ss and esp with the end of some RAM before the first push or call",
            )
    return None


def no_code(scene: Scene) -> Cause | None:
    """Zeros are executed: add [eax], al, over and over."""
    executed = scene.history.executed
    run = 0
    while run < len(executed) and executed[-1 - run].data[: len(_ZEROS)] == _ZEROS:
        run += 1
    ended = scene.faulted or scene.stop.reason == LIMIT
    at_stop = ended and scene.in_firmware and len(scene.code) >= _ZEROS_MIN and not any(scene.code)
    first = executed[-run].address if run else scene.stop.rip
    slide = scene.history.slide
    if run < _ZEROS_MIN and not at_stop and slide is not None:
        first = slide.target
    elif first is None or (run < _ZEROS_MIN and not at_stop):
        return None
    jump = slide or _entrance(scene.history.jumps, first)
    evidence = [f"at {first:#x}: 00 00  add byte ptr [eax], al"]
    if jump is not None:
        evidence.insert(0, f"the jump that led there: {scene.shown_at(jump.origin)}, to {jump.target:#x}")
    slid = (run or slide is not None) and scene.handoff is not None
    return Cause(
        "zeros are executed: a jump to where no code is",
        "The CPU runs through memory that holds nothing but zeros, which it takes for instructions"
        + (", and so has come upon the kernel's entry." if slid else "."),
        tuple(evidence),
        "look at the target of that jump: what should have been loaded there, or how its address is made",
        tuple(scene.violated) if slid else (),
    )


def _entrance(jumps: tuple[Jump, ...], address: int | None) -> Jump | None:
    """The last jump to in front of an address."""
    return next((jump for jump in reversed(jumps) if address is None or jump.target <= address), None)


def _last_jump(scene: Scene, rip: int) -> Jump | None:
    """Unicorn does not tell of an instruction that it cannot fetch: the one before it is the jump, if the next does not lie
    behind."""
    executed, jumps = scene.history.executed, scene.history.jumps
    if executed and not 0 <= rip - executed[-1].address <= len(executed[-1].data):
        return Jump(executed[-1].address, rip)
    return jumps[-1] if jumps else None


def no_memory(scene: Scene) -> Cause | None:
    """The next instruction lies where no memory is."""
    rip = scene.stop.rip
    if not scene.faulted or not scene.known or scene.code or rip is None or scene.registers["cr0"] & x86.CR0_PG:
        return None
    jump, cs = _last_jump(scene, rip), scene.segments["cs"]
    evidence = [f"cs {cs.selector:#06x}, base {cs.base:#x}: the next instruction is at {rip:#x}"]
    if jump is not None:
        evidence.insert(0, f"the last jump: {scene.shown_at(jump.origin)}, to {jump.target:#x}")
    return Cause(
        "a jump to where no memory is",
        f"The machine has neither RAM nor ROM at {rip:#x}.",
        tuple(evidence),
        "look at how the target is made: a pointer that was never written, a return address that was overwritten",
    )


def asked_for_reset(scene: Scene) -> Cause | None:
    """Firmware or guest has reset the machine."""
    if scene.stop.reason != RESET:
        return None
    who, where = ("firmware", "before") if scene.in_firmware else ("guest", "behind")
    return Cause(
        f"the {who} has reset the machine",
        f"It did so {where} the kernel's entry: {who}s do it when they give up, or when something is not as they expect it.",
        tuple(last_words(scene)) or (scene.stop.detail,),
        "look at what it checks in front of that place",
    )


def other_machine(scene: Scene) -> Cause | None:
    """An access to a device that the machine does not have, where that ends the run."""
    if scene.stop.reason != UNCLAIMED:
        return None
    at = [] if scene.stop.rip is None else [f"near {scene.at(scene.stop.rip)}"]
    return Cause(
        f"the firmware wants a device that the machine {scene.plan.spec.name} does not have",
        f"{scene.stop.detail[:1].upper()}{scene.stop.detail[1:]}.",
        tuple(at),
        "boot it on the machine that it is for: --machine",
    )


def bios_call(scene: Scene) -> Cause | None:
    """int n, as a program for a PC with a BIOS has it."""
    one = scene.instruction
    if not scene.faulted or one is None or one.mnemonic != "int" or one.operands[0].value not in _BIOS_CALLS:
        return None
    return Cause(
        f"a call of a BIOS, int {one.operands[0].value:#x}, and there is none",
        "What runs at the reset vector is all the firmware that there is: nobody has set up interrupt vectors.",
        (f"{scene.at(one.address)}: {one.text}",),
        "do what the call should do: port 0x3f8 or 0x402 to print, fw_cfg's etc/e820 for the memory map",
    )


def not_mapped(scene: Scene) -> Cause | None:
    """Paging was turned on, and the next instruction lies on no page."""
    executed = scene.history.executed
    if not scene.faulted or not scene.known or not scene.registers["cr0"] & x86.CR0_PG or scene.code:
        return None
    switch = next((one for one in reversed(executed[-_AFTER_SWITCH:]) if one.text.startswith("mov cr0")), None)
    if switch is None:
        return None
    return Cause(
        "paging was turned on, and the code behind is not mapped",
        "The page tables map nothing to the address of the next instruction: the processor cannot fetch it.",
        (scene.shown(switch), f"next at {scene.stop.rip:#x}; cr3 {scene.registers['cr3']:#x}, cr4 {scene.registers['cr4']:#x}"),
        "map the page of the code that turns paging on to its own address",
    )


def not_emulated(scene: Scene) -> Cause | None:
    """KVM's own emulator lacks the instruction."""
    one = scene.instruction
    if not scene.faulted or one is None or "cannot emulate" not in scene.stop.detail:
        return None
    return Cause(
        "this KVM does not execute the instruction",
        "A KVM in software, or one that emulates this mode, knows the common instructions alone. On another host it may run.",
        (f"{scene.at(one.address)}: {one.text}",),
        "use --engine unicorn, or plainer instructions",
    )


def unhandled(scene: Scene) -> Cause | None:
    """An exception, and no table that says who handles it."""
    if not scene.faulted:
        return None
    one = scene.instruction
    named = next((number for number, name in VECTOR_NAMES.items() if scene.stop.detail.startswith(name)), None)
    vector = _by_instruction(one) if named is None and one is not None else named
    evidence = [f"{scene.at(one.address)}: {one.text}"] if one else []
    if named is None and "triple fault" not in scene.stop.detail:
        return None
    if vector is None:
        return Cause(
            "an exception that nobody handles",
            "The instruction raised an exception, and as no IDT is set up, the processor shut down: a triple fault. Which "
            "exception it was this engine does not say.",
            tuple(evidence),
            "boot it with --engine unicorn, which names the exception",
        )
    what, remedy = _WHAT.get(vector, ("what its name says", "look at the instruction"))
    evidence.append(f"fault: {scene.stop.detail}")
    return Cause(
        f"{VECTOR_NAMES[vector].split()[0]} ({VECTOR_NAMES[vector].partition(' ')[2]}), and nobody handles it",
        f"It means: {what}. The IDT has no handler for it, so the processor shuts down.",
        tuple(evidence),
        remedy,
    )


def _by_instruction(one: Instruction) -> int | None:
    """The exception that hardly anything else can have raised there, where the engine does not say which it was."""
    if one.mnemonic in ("", "ud2"):
        return UD
    divisor = one.operands[0] if one.mnemonic in ("div", "idiv") else None
    return DE if divisor is not None and divisor.kind == REGISTER and divisor.value == 0 else None


FIRST: Final = (missing_low_rom, stack_in_rom)
RULES: Final = (not_mapped, no_code, no_memory, endless_loop, bios_call, not_emulated, other_machine)
# What holds of every such end, where no other rule knows more.
LAST: Final = (unhandled, halted, asked_for_reset)
