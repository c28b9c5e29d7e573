"""What an operating system needs of Unicorn's processor: a time stamp counter that is the board's, system calls."""

import forge_faults as forge
import pytest
import tick_guest
from pvhboot.emu.reasons import EXIT

TIME = """
    rdtsc
    mov esi, eax
    nop
    rdtsc
    sub eax, esi
    mov esi, eax
    mov eax, 1
    cpuid
    and edx, 0x210
    or eax, -1
    mov eax, esi
    shl edx, 16
    or eax, edx
"""


def test_the_time_stamp_counter_is_the_board_s_and_nobody_is_told_of_it(boot_image):
    """CPUID has the local APIC (bit 9) and no TSC (bit 4)."""
    values = {boot_image(tick_guest.interrupt_guest({}, TIME + tick_guest.leave("eax")))[0].run.stop.value for _ in range(2)}
    assert len(values) == 1
    value = values.pop()
    assert value >> 16 == 0x200
    assert 0 < value & 0xFFFF < 5000  # ns


@pytest.mark.parametrize("prefixes", ["", "0x66, ", "0xf3, 0x66, "])
def test_the_time_stamp_counter_is_read_whatever_stands_before_it(boot_image, prefixes):
    start = f"mov ecx, 0x1234\n.byte {prefixes}0x0f, 0x31\nmov ebx, ecx\n" + tick_guest.leave("ebx")
    assert boot_image(tick_guest.interrupt_guest({}, start))[0].run.stop.value == 0x1234


def test_behind_a_software_interrupt_the_time_stamp_counter_returns_to_its_own_place(boot_image):
    """Unicorn would keep the instruction pointer of an int n for what comes after it."""
    start = "int 0x25\nback:\n" + tick_guest.leave("9") + "behind:\nrdtsc\n" + tick_guest.leave("7")
    outcome, _ = boot_image(tick_guest.interrupt_guest({5: "jmp behind\n"}, start))
    assert outcome.run.stop.value == 7


SYSTEM_CALL = """
    mov ecx, 0xc0000080
    rdmsr
    or eax, 1
    wrmsr
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, 0x40
    wrmsr
    mov ecx, 0xc0000082
    mov eax, offset entry
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000084
    mov eax, 0x400
    xor edx, edx
    wrmsr
    mov eax, {data}
    push rax
    mov eax, {stack}
    push rax
    push 2
    mov eax, {code}
    push rax
    mov eax, offset user
    push rax
    iretq
user:
    std
    stc
    syscall
back:
    ud2
entry:
    mov esi, cs
    mov edi, ss
    jnc bad
    pushfq
    pop rax
    test eax, 0x400
    jnz bad
    test r11d, 0x400
    jz bad
    cmp rcx, offset back
    jne bad
    cmp esi, 0x40
    jne bad
    cmp edi, 0x48
    jne bad
    mov eax, 7
    jmp leave
bad:
    mov eax, 9
leave:
    mov edx, 0x501
    out dx, eax
    hlt
"""


def test_a_system_call_enters_ring_0(boot_image):
    body = SYSTEM_CALL.format(data=forge.USER_DATA32, stack=forge.USER_STACK, code=forge.USER_CODE64)
    outcome, _ = boot_image(forge.forge("long", body).elf)
    assert (outcome.run.stop.reason, outcome.run.stop.value) == (EXIT, 7)


@pytest.mark.parametrize("mode", ["flat", "long"])
def test_a_system_call_that_is_not_switched_on_is_an_invalid_opcode(boot_image, mode):
    gates = {6: forge.Gate(to="not_there")}
    body = ".byte 0x0f, 0x05\n" + tick_guest.leave("9") + "not_there:\n" + tick_guest.leave("7")
    assert boot_image(forge.forge(mode, body, gates).elf)[0].run.stop.value == 7


def test_a_system_call_of_legacy_mode_enters_by_star(boot_image):
    """A REX prefix is none here: 0x66 is."""
    enable = "mov ecx, 0xc0000080\nrdmsr\nor eax, 1\nwrmsr\nmov ecx, 0xc0000081\nmov eax, offset entry\nmov edx, 8\nwrmsr\n"
    body = f"{enable}.byte 0x66, 0x0f, 0x05\nback:\n{tick_guest.leave('9')}entry:\nsub ecx, offset back\nadd ecx, 7\n"
    assert boot_image(forge.forge("flat", body + tick_guest.leave("ecx")).elf)[0].run.stop.value == 7
