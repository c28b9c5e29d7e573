"""What KVM says of a guest that cannot go on, in words."""

from collections.abc import Callable
from typing import Final

from pvhboot.shim.abi.x86 import RESET_VECTOR

from ...reasons import FAULT, RESET
from . import uapi

_SYSTEM_EVENTS: Final = {
    uapi.KVM_SYSTEM_EVENT_SHUTDOWN: "the guest asked KVM to switch it off",
    uapi.KVM_SYSTEM_EVENT_CRASH: "the guest told KVM that it has crashed",
}


def failure(reason: int, exit: uapi.ExitUnion, at: int, place: Callable[[bytes], str]) -> tuple[str, str]:
    """Of an exit after which there is no going on: a word of `reasons`, and the words for a person. `at` is the linear address
    of the next instruction; `place` tells it as the end of a phrase, with the instruction's bytes, if KVM has told them."""
    if reason == uapi.KVM_EXIT_SHUTDOWN:
        if at == RESET_VECTOR:
            return FAULT, "triple fault; where is unknown, as this host has reset the vCPU already"
        return FAULT, f"triple fault{place(b'')}"
    if reason == uapi.KVM_EXIT_INTERNAL_ERROR:
        return FAULT, _internal_error(exit, place)
    if reason == uapi.KVM_EXIT_FAIL_ENTRY:
        why = exit.fail_entry.hardware_reason
        return FAULT, f"the processor refuses to enter the guest, hardware reason {why:#x}"
    if reason == uapi.KVM_EXIT_UNKNOWN:
        return FAULT, f"an exit unknown to KVM, hardware reason {exit.hw.hardware_reason:#x}"
    if reason == uapi.KVM_EXIT_SYSTEM_EVENT:
        kind = exit.system_event.type
        if kind == uapi.KVM_SYSTEM_EVENT_RESET:
            return RESET, "the guest asked KVM for a reset"
        return FAULT, _SYSTEM_EVENTS.get(kind, f"KVM system event {kind}")
    return FAULT, f"KVM exit reason {reason}, which this engine has not asked for"


def _internal_error(exit: uapi.ExitUnion, place: Callable[[bytes], str]) -> str:
    suberror, words = exit.internal.suberror, exit.internal.data[: min(exit.internal.ndata, 16)]
    if suberror == uapi.KVM_INTERNAL_ERROR_EMULATION:
        told, code = exit.emulation_failure, b""
        # The flags are the first word, the length and the bytes of the instruction the next two.
        if len(words) >= 3 and told.flags & uapi.KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES:
            code = bytes(told.insn_bytes)[: told.insn_size]
        return f"KVM cannot emulate an instruction (internal error, suberror 1){place(code)}"
    data = " ".join(f"{word:#x}" for word in words) or "none"
    return f"KVM internal error, suberror {suberror}, data {data}{place(b'')}"
