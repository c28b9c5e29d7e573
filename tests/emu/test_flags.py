"""Which flags an instruction defines and leaves undefined: Capstone's own table is the second opinion."""

import capstone.x86 as capstone
import pytest
from pvhboot.emu.disassembly import decode
from pvhboot.emu.flags import Flags, flags_of
from pvhboot.shim.abi import x86

NAMES = ("CF", "PF", "AF", "ZF", "SF", "OF")
AF, CF, OF = x86.EFLAGS_AF, x86.EFLAGS_CF, x86.EFLAGS_OF

CODES = (
    *("01c8", "11c8", "29c8", "39c8", "19c8", "f7d8", "0fc1c8", "0fb1c8", "a6", "af"),  # add adc sub cmp sbb neg xadd cmpxchg
    *("21c8", "09c8", "31c8", "85c8", "40", "48", "f7e1", "f7f1", "f7f9"),  # and or xor test inc dec mul div idiv
    *("0fa3c8", "0fabc8", "0fb3c8", "0fbbc8", "0fbcc1", "0fbdc1"),  # bt bts btr btc bsf bsr
    *("37", "3f", "d50a", "d40a", "27", "2f", "9d", "9e", "f8", "f9"),  # aaa aas aad aam daa das popfd sahf clc stc
    *("d1e0", "d1e8", "d1f8", "0fa4c804", "0facc804"),  # shl shr sar by 1, shld shrd by 4
    *("0f02c1", "0f03c1", "0f00e1", "63c8", "0fc70b", "f0010b"),  # lar lsl verr arpl cmpxchg8b, lock add
    *("89c8", "8d01", "f7d0", "0fc8", "50", "e2fe", "fc", "9f"),  # mov lea not bswap push loop cld lahf
)


def bits(eflags, *kinds):
    """Of Capstone's flags, those that are one of these kinds."""
    return sum(
        getattr(x86, f"EFLAGS_{name}")
        for name in NAMES
        if any(eflags & getattr(capstone, f"X86_EFLAGS_{kind}_{name}", 0) for kind in kinds)
    )


@pytest.mark.parametrize("code", CODES)
def test_as_capstone_has_it(code):
    found = decode(bytes.fromhex(code), 0x1000, 32)
    eflags = found.detail.eflags
    assert flags_of(found.text, None) == Flags(bits(eflags, "MODIFY", "RESET", "SET"), bits(eflags, "UNDEFINED"))


ARITHMETIC = x86.EFLAGS_ARITHMETIC
BY_COUNT = [
    ("shl eax, 1", None, Flags(ARITHMETIC & ~AF, AF)),
    ("shl eax", None, Flags(ARITHMETIC & ~AF, AF)),
    ("shr eax, 3", None, Flags(ARITHMETIC & ~(AF | OF), AF | OF)),
    ("sar dword ptr [ebx], cl", 0x103, Flags(ARITHMETIC & ~(AF | OF), AF | OF)),
    ("shl al, 8", None, Flags(ARITHMETIC & ~(AF | OF | CF), AF | OF | CF)),
    ("sar al, 8", None, Flags(ARITHMETIC & ~(AF | OF), AF | OF)),
    ("shr word ptr [bx], 0x11", None, Flags(ARITHMETIC & ~(AF | OF | CF), AF | OF | CF)),
    ("shl eax, cl", 0x20, Flags()),
    ("shl rax, cl", 0x20, Flags(ARITHMETIC & ~(AF | OF), AF | OF)),
    ("shl r8d, cl", 0x20, Flags()),
    ("shl eax, cl", None, Flags(0, ARITHMETIC)),
    ("rol eax, 1", None, Flags(CF | OF)),
    ("rcr byte ptr [ebx], 2", None, Flags(CF, OF)),
    ("rol eax, cl", 0x40, Flags()),
    ("shld ax, bx, 0x11", None, Flags(0, ARITHMETIC)),
    ("shld ax, bx, 1", None, Flags(ARITHMETIC & ~AF, AF)),
    ("shrd eax, ebx, cl", 0, Flags()),
    ("imul eax, ecx, 5", None, Flags(CF | OF, ARITHMETIC & ~(CF | OF))),  # where Capstone has SF as defined: SDM, IMUL
]


@pytest.mark.parametrize(("text", "ecx", "expected"), BY_COUNT)
def test_as_the_count_has_it(text, ecx, expected):
    assert flags_of(text, ecx) == expected
