"""What Unicorn's processor needs beside interrupts to run an operating system: system calls, a time stamp counter that is the
board's, and a CPUID that says what there is.

Source: Intel SDM volume 2B, SYSCALL and RDTSC; volume 3A, 6.8.8 (the MSRs); volume 2A, CPUID; AMD64 volume 3, SYSCALL (outside
of 64-bit mode, as the processor is an AMD); volume 2, 15.9 and appendix B, C (what SVM intercepts).
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from pvhboot.shim.abi import interrupts, paging, x86

from .base import ENCODED, Stop
from .unicorn_context import HiddenSegment, LiveContext
from .unicorn_exceptions import Exceptions

_WHOLE: Final = (1 << 64) - 1  # of an instruction pointer
_RAX, _RCX, _RDX, _R11 = ENCODED.index("eax"), ENCODED.index("ecx"), ENCODED.index("edx"), 11
_CODE: Final = (  # of 32 or 64 bits: DESC_DB or DESC_L is yet to come
    x86.DESC_S | x86.DESC_P | x86.DESC_G | (x86.TYPE_CODE | x86.TYPE_READABLE | x86.TYPE_ACCESSED) << x86.DESC_TYPE_SHIFT
)
_STACK: Final = (
    x86.DESC_S | x86.DESC_P | x86.DESC_DB | x86.DESC_G | (x86.TYPE_WRITABLE | x86.TYPE_ACCESSED) << x86.DESC_TYPE_SHIFT
)


# Unicorn has no hook for RDTSC, and answers with the host's; but its processor has the intercepts of SVM, and to those that go
# off nothing happens than that they are told as an exception of a number of their own.
_INTERCEPT_RDTSC: Final = 1 << 14
TIME_ASKED: Final = 0x100 + 0x6E


def choose_processor(uc: Any) -> None:
    """QEMU's plain 64-bit model, to which Linux does nothing for the sake of a hardware bug, as it would to Unicorn's own;
    without the time stamp counter, each look at which costs an exception, and without RDRAND, which is chance."""
    import unicorn
    import unicorn.x86_const as const

    uc.ctl_set_cpu_model(const.UC_CPU_X86_QEMU64)

    def on_cpuid(uc: Any, _data: Any) -> int:
        leaf, subleaf = uc.reg_read(const.UC_X86_REG_EAX), uc.reg_read(const.UC_X86_REG_ECX)
        for register, value in zip(_registers(), _cpuid(leaf, subleaf), strict=True):
            uc.reg_write(register, value)
        return 1

    uc.hook_add(unicorn.UC_HOOK_INSN, on_cpuid, None, 1, 0, const.UC_X86_INS_CPUID)


@cache
def _registers() -> tuple[int, ...]:
    import unicorn.x86_const as const

    return const.UC_X86_REG_RAX, const.UC_X86_REG_RBX, const.UC_X86_REG_RCX, const.UC_X86_REG_RDX


@cache
def _asked() -> Any:
    """A CPU of the same model that is there to be asked."""
    import unicorn
    import unicorn.x86_const as const

    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.ctl_set_cpu_model(const.UC_CPU_X86_QEMU64)
    uc.mem_map(0, x86.PAGE_SIZE)
    uc.mem_write(0, x86.CPUID)
    return uc


def _cpuid(leaf: int, subleaf: int) -> tuple[int, ...]:
    """What the model says, without what it should not say."""
    uc, (rax, _, rcx, _) = _asked(), _registers()
    uc.reg_write(rax, leaf)
    uc.reg_write(rcx, subleaf)
    uc.emu_start(0, len(x86.CPUID))
    eax, ebx, ecx, edx = (uc.reg_read(register) for register in _registers())
    if leaf == x86.CPUID_FEATURES_LEAF:
        ecx &= ~x86.CPUID_1_ECX_RDRAND
        edx &= ~x86.CPUID_1_EDX_TSC
    return eax, ebx, ecx, edx


def intercept_time(uc: Any) -> None:
    """RDTSC comes as the exception TIME_ASKED, from now on. RDTSCP this processor does not have."""
    cpu = LiveContext(uc)
    cpu.intercepts = _INTERCEPT_RDTSC
    cpu.be_virtual()
    cpu.restore()


def tell_time(uc: Any, exceptions: Exceptions, time: int) -> None:
    """At the exception TIME_ASKED: answers."""
    cpu = LiveContext(uc)
    general = list(cpu.general)
    general[_RAX], general[_RDX] = time & x86.FLAT_LIMIT, time >> 32
    cpu.general = tuple(general)
    cpu.rip += exceptions.length(cpu, x86.RDTSC)
    cpu.restore()


def add_system_calls(uc: Any, exceptions: Exceptions, end: Callable[[Stop], None]) -> None:
    """SYSCALL, which Unicorn leaves to a hook. `end` is told of an exception that cannot be delivered."""
    import unicorn
    import unicorn.x86_const as const

    def on_syscall(uc: Any, _data: Any) -> None:
        cpu = LiveContext(uc)
        length = exceptions.length(cpu, x86.SYSCALL)
        if cpu.efer & paging.EFER_SCE:
            _enter(uc, cpu, length)
        elif (stop := exceptions.take(interrupts.UD)) is not None:
            end(stop)
            return
        cpu.update()
        cpu.rip = cpu.rip - length & _WHOLE  # Unicorn goes on behind the instruction
        cpu.restore()

    uc.hook_add(unicorn.UC_HOOK_INSN, on_syscall, None, 1, 0, const.UC_X86_INS_SYSCALL)


def _enter(uc: Any, cpu: LiveContext, length: int) -> None:
    """Executes a SYSCALL of so many bytes, up to where its handler is entered."""
    import unicorn.x86_const as const

    def msr(number: int) -> int:
        value: int = uc.reg_read(const.UC_X86_REG_MSR, number)
        return value

    flags, star, after = cpu.all_eflags(), msr(x86.MSR_STAR), cpu.rip + length
    selector = star >> x86.STAR_SYSCALL_SHIFT & 0xFFFF & ~x86.SELECTOR_RPL
    general = list(cpu.general)
    if cpu.efer & paging.EFER_LMA:
        general[_RCX], general[_R11] = after, flags & ~x86.EFLAGS_RF
        entry = msr(x86.MSR_LSTAR if cpu.bits == 64 else x86.MSR_CSTAR)
        mode, cleared = x86.DESC_L, msr(x86.MSR_FMASK) | x86.EFLAGS_RF
    else:
        general[_RCX], entry = after & x86.FLAT_LIMIT, star & x86.FLAT_LIMIT
        mode, cleared = x86.DESC_DB, x86.EFLAGS_IF | x86.EFLAGS_RF | x86.EFLAGS_VM
    cpu.general, cpu.rip = tuple(general), entry
    cpu.load_segments(
        {
            "cs": HiddenSegment(selector, 0, x86.FLAT_LIMIT, (_CODE | mode) >> x86.ATTRIBUTE_SHIFT),
            "ss": HiddenSegment(selector + x86.DESC_SIZE, 0, x86.FLAT_LIMIT, _STACK >> x86.ATTRIBUTE_SHIFT),
        },
        0,
    )
    cpu.restore()
    uc.reg_write(const.UC_X86_REG_EFLAGS, flags & ~cleared | x86.EFLAGS_FIXED)
