"""How an instruction goes on, of its bytes alone."""

import pytest
from pvhboot.emu.flow import Flow, Way, flow

AT = 0xFFFF8100

CASES = {
    "jz rel8": ("74 10", 32, Flow(Way.BRANCH, AT + 2 + 0x10)),
    "jz rel8 back": ("74 fe", 32, Flow(Way.BRANCH, AT)),
    "jnz rel32": ("0f 85 00 01 00 00", 32, Flow(Way.BRANCH, AT + 6 + 0x100)),
    "jnz rel16 in 16 bits": ("0f 85 00 01", 16, Flow(Way.BRANCH, AT + 4 + 0x100)),
    "jnz rel32 in 16 bits": ("66 0f 85 00 01 00 00", 16, Flow(Way.BRANCH, AT + 7 + 0x100)),
    "a 16-bit target stays in its segment": ("0f 85 00 80", 16, Flow(Way.BRANCH, 0xFFFF0104)),
    "loop": ("e2 f0", 32, Flow(Way.BRANCH, AT + 2 - 0x10)),
    "loopne": ("e0 f0", 32, Flow(Way.BRANCH, AT + 2 - 0x10)),
    "jecxz": ("e3 10", 32, Flow(Way.BRANCH, AT + 2 + 0x10)),
    "jcxz in 32 bits": ("67 e3 10", 32, Flow(Way.BRANCH, AT + 3 + 0x10)),
    "a branch with a hint": ("3e 74 10", 32, Flow(Way.BRANCH, AT + 3 + 0x10)),
    "jmp rel8": ("eb 10", 32, Flow(Way.JUMP, AT + 2 + 0x10)),
    "jmp rel32 to the start of memory": ("e9 fb 7e 00 00", 32, Flow(Way.JUMP, 0)),
    "call": ("e8 00 00 01 00", 32, Flow(Way.CALL, (AT + 5 + 0x10000) % (1 << 32))),
    "ret": ("c3", 32, Flow(Way.ELSEWHERE)),
    "ret imm16": ("c2 04 00", 32, Flow(Way.ELSEWHERE)),
    "iret": ("cf", 32, Flow(Way.ELSEWHERE)),
    "a far jump": ("66 ea 18 80 ff ff 10 00", 16, Flow(Way.ELSEWHERE)),
    "jmp eax": ("ff e0", 32, Flow(Way.ELSEWHERE)),
    "jmp [mem]": ("ff 25 00 10 00 00", 32, Flow(Way.ELSEWHERE)),
    "jmp r8": ("41 ff e0", 64, Flow(Way.ELSEWHERE)),
    "call eax comes back": ("ff d0", 32, Flow(Way.NEXT)),
    "push [mem]": ("ff 35 00 10 00 00", 32, Flow(Way.NEXT)),
    "inc ecx, which a REX prefix looks like": ("41", 32, Flow(Way.NEXT)),
    "ud2": ("0f 0b", 32, Flow(Way.ELSEWHERE)),
    "cpuid": ("0f a2", 32, Flow(Way.NEXT)),
    "hlt, which an interrupt ends": ("f4", 32, Flow(Way.NEXT)),
    "rep movsd": ("f3 a5", 32, Flow(Way.NEXT)),
    "a prefix alone": ("66", 32, Flow(Way.NEXT)),
}


@pytest.mark.parametrize(("code", "bits", "expected"), CASES.values(), ids=CASES)
def test_an_instruction_goes_on_as_its_bytes_say(code, bits, expected):
    assert flow(bytes.fromhex(code), AT, bits) == expected
