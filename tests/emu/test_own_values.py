"""What is the processor's own, and the registers that it is in."""

import pytest
from pvhboot.emu.own_values import whole_register


@pytest.mark.parametrize(
    ("name", "whole"),
    [("al", "eax"), ("ch", "ecx"), ("bx", "ebx"), ("rdx", "edx"), ("esp", "esp"), ("sil", "esi"), ("bp", "ebp")]
    + [
        ("r8", "r8"),
        ("r10d", "r10"),
        ("r15b", "r15"),
        ("rflags", "eflags"),
        ("eflags", "eflags"),
        ("cr0", "cr0"),
        ("ds", "ds"),
    ],
)
def test_a_part_of_a_register_is_the_register(name, whole):
    assert whole_register(name) == whole
