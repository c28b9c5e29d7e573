"""The KVM engine on ROMs written by hand. Skipped where there is no usable /dev/kvm, but for the tests of just that."""

import os
import signal
import struct
import sys
import threading
from types import SimpleNamespace

import pytest
from host import without_privilege
from pvhboot.emu import reasons
from pvhboot.emu.bus import Access, Bus
from pvhboot.emu.engines.base import Limits, Until
from pvhboot.emu.engines.kvm import device, uapi
from pvhboot.emu.engines.kvm.engine import KvmEngine
from pvhboot.emu.engines.kvm.vcpu import segment
from pvhboot.emu.engines.kvm.vm import Vm
from pvhboot.loader.memory import GuestMemory
from pvhboot.shim.abi import x86
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import Span

ROM_SIZE = 0x1000
ROM_START = 0xFFFFF000
FLAT_CODE = ROM_START + 0x100  # where 32-bit code of these ROMs starts
DATA = ROM_START + 0x800
GDT = ROM_START + 0xE00
GDT_POINTER = ROM_START + 0xE80
KERNEL = 0x100000
NOWHERE = 0xD0000000  # neither RAM nor ROM
EXIT_PORT = 0xF4

# jmp to the ROM's first byte: IP wraps from 0xfff3 back to 0xf000.
RESET = b"\xe9" + struct.pack("<h", 0xF000 - 0xFFF3)
TO_FLAT = (
    b"\x2e\x66\x0f\x01\x16" + struct.pack("<H", GDT_POINTER & 0xFFFF)  # lgdtl cs:[pointer]
    + b"\x0f\x20\xc0\x0c\x01\x0f\x22\xc0"  # cr0 |= PE
    + b"\x66\xea" + struct.pack("<IH", FLAT_CODE, 8)  # ljmpl 8:FLAT_CODE
)  # fmt: skip
FLAT_SEGMENTS = b"\x66\xb8\x10\x00\x8e\xd8\x8e\xc0\x8e\xd0"  # mov ax, 16; mov ds, ax; mov es, ax; mov ss, ax
GDT_BYTES = struct.pack("<QQQ", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)


@pytest.fixture
def kvm():
    """Skips the test with the reason if this host cannot run it."""
    try:
        os.close(device.open_device())
    except BootError as error:
        pytest.skip(str(error))


class Echo:
    """A device that answers reads with consecutive numbers."""

    def __init__(self):
        self.next = 0

    def read(self, _offset, size):
        self.next += 1
        return self.next % (1 << 8 * size)

    def write(self, _offset, _size, _value):
        pass


class StubBoard:
    """What an engine asks of a Board, with a port that ends the run."""

    def __init__(self, memory, entry=KERNEL, unclaimed="ones"):
        self.memory = memory
        self.entry = entry
        self.bus = Bus(unclaimed)
        self.stop = None
        self.text = None
        self.host_acpi = self.host_appends = False
        self.interrupts = self.input = None
        self.bus.claim_ports(EXIT_PORT, 1, "exit", self)
        self.bus.claim_ports(0x300, 1, "echo", Echo(), width=4)

    def stop_at_console_text(self, text):
        self.text = text

    @property
    def rom_writes(self):
        return tuple(access for access in self.bus.log if access.kind == "write" and access.address >= ROM_START)

    def read(self, _offset, _size):
        return 0

    def write(self, _offset, _size, value):
        self.stop = SimpleNamespace(reason=reasons.EXIT, detail="told so", value=value)


def rom_of(code, flat=b"", data=b""):
    image = bytearray(b"\xf4" * ROM_SIZE)  # hlt

    def put(paddr, what):
        image[paddr - ROM_START : paddr - ROM_START + len(what)] = what

    assert len(code) <= FLAT_CODE - ROM_START
    assert len(flat) <= DATA - FLAT_CODE
    put(ROM_START, code)
    put(FLAT_CODE, flat)
    put(DATA, data)
    put(GDT, GDT_BYTES)
    put(GDT_POINTER, struct.pack("<HI", len(GDT_BYTES) - 1, GDT))
    put(x86.RESET_VECTOR, RESET)
    return bytes(image)


def real_mode(code, data=b"", **more):
    return StubBoard(GuestMemory([Span("RAM", 0, 16 << 20)], rom_of(code, data=data)), **more)


def flat(code, data=b"", **more):
    return StubBoard(GuestMemory([Span("RAM", 0, 16 << 20)], rom_of(TO_FLAT, FLAT_SEGMENTS + code, data)), **more)


TO_THE_END = Until("exit")
NO_LIMITS = Limits()


def run(board, until=TO_THE_END, limits=NO_LIMITS, on_handoff=lambda _handoff: None):
    return KvmEngine().run(board, until, limits, on_handoff)


def counted(what):
    """The counts but those that a busy host adds to."""
    return {name: count for name, count in what.counts.items() if name not in ("kvm_ioctls", "kvm_exits_interrupted")}


def fds():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.usefixtures("kvm")
class TestReset:
    def test_a_fresh_vcpu_is_in_the_reset_state(self):
        with Vm(GuestMemory([Span("RAM", 0, 1 << 20)], rom_of(b""))) as machine, machine.vcpu() as vcpu:
            regs, sregs = vcpu.regs(), vcpu.sregs()
        assert (regs.rip, regs.rflags, regs.rdx) == (x86.RESET_IP, x86.RESET_EFLAGS, x86.RESET_EDX)
        assert [getattr(regs, name) for name in ("rax", "rbx", "rcx", "rsi", "rdi", "rbp", "rsp")] == [0] * 7
        assert (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) == (x86.RESET_CR0, 0, 0, 0)
        assert segment(sregs.cs) == x86.RESET_CS
        assert {segment(getattr(sregs, name)) for name in ("ds", "es", "ss", "fs", "gs")} == {x86.RESET_DATA}
        assert segment(sregs.tr) == x86.RESET_TR
        assert segment(sregs.ldt) == x86.RESET_LDTR
        assert {(table.base, table.limit) for table in (sregs.gdt, sregs.idt)} == {(0, x86.RESET_TABLE_LIMIT)}

    def test_an_unknown_msr_is_none(self):
        with Vm(GuestMemory([Span("RAM", 0, 1 << 20)], rom_of(b""))) as machine, machine.vcpu() as vcpu:
            assert vcpu.msr(0x40FFFFF0) is None


@pytest.mark.usefixtures("kvm")
class TestAccesses:
    def test_out_and_in_of_each_size(self):
        board = real_mode(
            b"\xba\x00\x03"  # mov dx, 0x300
            b"\x66\xb8\x78\x56\x34\x12\xee\xef\x66\xef"  # mov eax, 0x12345678; out dx, al; out dx, ax; out dx, eax
            b"\x66\x31\xc0\x66\xed\x66\x89\xc3"  # xor eax, eax; in eax, dx; mov ebx, eax
            b"\xed\x89\xc1\xec\xf4"  # in ax, dx; mov cx, ax; in al, dx; hlt
        )
        end = run(board)
        assert end.stop.reason == reasons.HALT
        assert board.bus.log == [
            Access("out", 0x300, 1, 0x78, "echo"),
            Access("out", 0x300, 2, 0x5678, "echo"),
            Access("out", 0x300, 4, 0x12345678, "echo"),
            Access("in", 0x300, 4, 1, "echo"),
            Access("in", 0x300, 2, 2, "echo"),
            Access("in", 0x300, 1, 3, "echo"),
        ]
        assert (end.registers["ebx"], end.registers["ecx"], end.registers["eax"]) == (1, 2, 3)
        assert counted(end) == {"out": 3, "in": 3, "kvm_exits": 7, "kvm_exits_io": 6, "kvm_exits_hlt": 1}

    def test_a_string_of_bytes_is_one_access_an_element(self):
        board = real_mode(
            b"\xba\x00\x03\xbe\x00\xf8\xb9\x05\x00"  # mov dx, 0x300; mov si, DATA; mov cx, 5
            b"\xf3\x2e\x6e\xf4",  # rep outsb cs:[si]; hlt
            data=b"hello",
        )
        end = run(board)
        assert end.stop.reason == reasons.HALT
        assert board.bus.log == [Access("out", 0x300, 1, byte, "echo") for byte in b"hello"]
        assert (end.registers["ecx"], end.registers["esi"]) == (0, 0xF805)

    def test_words_read_as_a_string_arrive_in_memory(self):
        # mov dx, 0x300; mov di, 0x500; mov cx, 4; rep insw; hlt
        board = real_mode(b"\xba\x00\x03\xbf\x00\x05\xb9\x04\x00\xf3\x6d\xf4")
        end = run(board)
        assert end.stop.reason == reasons.HALT
        assert board.bus.log == [Access("in", 0x300, 2, number, "echo") for number in (1, 2, 3, 4)]
        assert board.memory.read(0x500, 8) == struct.pack("<4H", 1, 2, 3, 4)

    def test_memory_that_nobody_has(self):
        board = flat(
            b"\xc7\x05" + struct.pack("<II", NOWHERE, 0x12345678)  # mov dword [NOWHERE], 0x12345678
            + b"\x66\xa1" + struct.pack("<I", NOWHERE + 8)  # mov ax, [NOWHERE + 8]
            + b"\xf4"
        )  # fmt: skip
        end = run(board)
        assert end.stop.reason == reasons.HALT
        assert board.bus.log == [
            Access("write", NOWHERE, 4, 0x12345678, ""),
            Access("read", NOWHERE + 8, 2, 0xFFFF, ""),
        ]
        assert end.registers["eax"] & 0xFFFF == 0xFFFF

    def test_a_store_to_the_rom_is_recorded_and_changes_nothing(self):
        board = flat(
            b"\xc6\x05" + struct.pack("<IB", DATA, 0x55)  # mov byte [DATA], 0x55
            + b"\xa0" + struct.pack("<I", DATA)  # mov al, [DATA]
            + b"\xf4",
            data=b"\xaa",
        )  # fmt: skip
        end = run(board)
        assert end.stop.reason == reasons.HALT
        assert board.bus.log == [Access("write", DATA, 1, 0x55, "")]
        assert board.memory.read(DATA, 1) == b"\xaa"
        assert end.registers["eax"] & 0xFF == 0xAA


@pytest.mark.usefixtures("kvm")
class TestStops:
    def test_hlt(self):
        stop = run(real_mode(b"\x90\xf4")).stop
        assert stop == (reasons.HALT, "hlt with interrupts off", ROM_START + 2, None)

    def test_hlt_with_interrupts_on_ends_too_and_says_why(self):
        stop = run(real_mode(b"\xfb\x90\xf4")).stop
        assert stop.reason == reasons.HALT
        assert "nothing here raises one" in stop.detail

    def test_a_device_that_asks_for_the_end(self):
        end = run(real_mode(b"\xb0\x2a\xe6\xf4\xb0\x00\xf4"))  # mov al, 42; out 0xf4, al; mov al, 0; hlt
        assert end.stop == (reasons.EXIT, "told so", ROM_START + 4, 42)  # the out is complete, the next not begun
        assert end.registers["eax"] & 0xFF == 42
        assert end.registers["eip"] == 0xF004

    def test_no_element_is_served_after_the_stop(self):
        # mov dx, 0xf4; mov si, DATA; mov cx, 3; rep outsb cs:[si]; hlt
        board = real_mode(b"\xba\xf4\x00\xbe\x00\xf8\xb9\x03\x00\xf3\x2e\x6e\xf4", data=b"abc")
        assert run(board).stop.value == ord("a")
        assert len(board.bus.log) == 1

    def test_an_endless_loop_ends_at_the_limit_of_time(self):
        stop = run(real_mode(b"\xeb\xfe"), limits=Limits(seconds=0.3)).stop
        assert (stop.reason, stop.rip) == (reasons.LIMIT, ROM_START)

    def test_an_endless_loop_of_accesses_ends_at_the_limit_of_time_too(self):
        stop = run(real_mode(b"\xe6\x80\xeb\xfc"), limits=Limits(seconds=0.3)).stop  # out 0x80, al; jmp back
        assert stop.reason == reasons.LIMIT

    def test_the_limit_of_accesses(self):
        board = real_mode(b"\xe6\x80\xeb\xfc")
        stop = run(board, limits=Limits(exits=10)).stop
        assert (stop.reason, stop.rip, board.bus.accesses) == (reasons.LIMIT, ROM_START + 2, 10)

    def test_a_triple_fault_names_the_place(self):
        stop = run(flat(b"\x0f\x0b")).stop  # ud2, and no IDT
        assert stop.reason == reasons.FAULT
        assert "triple fault" in stop.detail
        if stop.rip != x86.RESET_VECTOR:  # AMD
            assert stop.rip == FLAT_CODE + len(FLAT_SEGMENTS)
            assert "bytes 0f 0b" in stop.detail

    def test_the_text_to_wait_for_is_told_to_the_board(self):
        board = real_mode(b"\xf4")
        run(board, Until("console", "Linux version"))
        assert board.text == "Linux version"

    def test_an_access_that_nobody_answers_where_that_ends_the_run(self):
        board = real_mode(b"\xe6\x80\xf4", unclaimed="stop")
        board.__class__ = type("Strict", (StubBoard,), {"stop": property(strict_stop, lambda *_: None)})
        assert run(board).stop == (reasons.UNCLAIMED, "out", ROM_START + 2, None)


def strict_stop(board):
    access = board.bus.unclaimed_stop
    return access and SimpleNamespace(reason=reasons.UNCLAIMED, detail=access.kind, value=None)


@pytest.mark.usefixtures("kvm")
class TestHandoff:
    # mov byte [DATA], 1; mov ebx, 0x6000; mov eax, KERNEL; jmp eax
    TO_KERNEL = b"\xc6\x05" + struct.pack("<IB", DATA, 1) + b"\xbb\0\x60\0\0\xb8" + struct.pack("<I", KERNEL) + b"\xff\xe0"

    def board(self):
        board = flat(self.TO_KERNEL)
        board.memory.view(KERNEL, 5)[:] = b"\xb0\x07\xe6\xf4\xf4"  # mov al, 7; out 0xf4, al; hlt
        return board

    def test_the_handoff_is_what_the_guest_has_set(self):
        seen = []
        end = run(self.board(), Until("handoff"), on_handoff=seen.append)
        (handoff,) = seen
        assert (end.stop.reason, end.stop.rip) == (reasons.HANDOFF, KERNEL)
        assert end.registers == handoff.registers
        assert handoff.engine == "kvm"
        registers = handoff.registers
        assert set(registers) == set(
            "eax ebx ecx edx esi edi ebp esp eip eflags cr0 cr3 cr4 efer gdtr_base gdtr_limit".split()  # noqa: SIM905
        )
        assert (registers["eax"], registers["ebx"], registers["eip"]) == (KERNEL, 0x6000, KERNEL)
        assert (registers["cr0"] & 1, registers["gdtr_base"], registers["gdtr_limit"]) == (1, GDT, len(GDT_BYTES) - 1)
        assert handoff.segments["cs"] == x86.Segment(8, 0, 0xFFFFFFFF, 0xB, True, True, True, False, True)
        assert handoff.segments["ds"] == x86.Segment(16, 0, 0xFFFFFFFF, 0x3, True, True, True, False, True)
        assert handoff.segments["tr"] == x86.RESET_TR
        assert set(handoff.segments) == {"cs", "ds", "es", "ss", "fs", "gs", "tr"}
        assert isinstance(handoff.has_mtrr, bool)
        if handoff.has_mtrr:
            assert handoff.mtrr_def_type == 0  # off after a reset, and nobody has written it
        assert handoff.rom_writes == (Access("write", DATA, 1, 1, ""),)
        assert counted(handoff) == {"write": 1, "kvm_exits": 2, "kvm_exits_mmio": 1, "kvm_exits_debug": 1}
        assert handoff.memory.read(KERNEL, 2) == b"\xb0\x07"

    def test_it_is_told_once_and_the_guest_goes_on(self):
        seen = []
        end = run(self.board(), on_handoff=seen.append)
        assert len(seen) == 1
        assert (end.stop.reason, end.stop.value, end.stop.rip) == (reasons.EXIT, 7, KERNEL + 4)

    def test_an_exception_of_the_listener_comes_through_with_everything_closed(self):
        before = fds()
        with pytest.raises(KeyboardInterrupt):
            run(self.board(), on_handoff=lambda _handoff: signal.raise_signal(signal.SIGINT))
        assert fds() == before


@pytest.mark.usefixtures("kvm")
class TestHost:
    def test_nothing_leaks(self):
        run(real_mode(b"\xf4"))
        before = fds()
        for _ in range(20):
            run(real_mode(b"\xf4"))
        assert fds() == before

    def test_a_refused_slot_closes_everything(self):
        before = fds()
        with pytest.raises(BootError, match=r"^KVM cannot map RAM at 0x0-0x1001: "):
            run(StubBoard(GuestMemory([Span("RAM", 0, 0x1001)], rom_of(b"\xf4"))))
        assert fds() == before

    def test_the_timer_and_the_handler_of_others_are_restored(self):
        def mine(_number, _frame):
            pass

        timer, handler = signal.setitimer(signal.ITIMER_REAL, 200, 7), signal.signal(signal.SIGALRM, mine)
        try:
            run(real_mode(b"\xf4"))
            assert signal.getsignal(signal.SIGALRM) is mine
            delay, interval = signal.getitimer(signal.ITIMER_REAL)
            assert 100 < delay <= 200
            assert interval == 7
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, *timer)

    def test_ctrl_c_ends_an_endless_loop_with_everything_closed(self):
        before = fds()
        main = threading.main_thread().ident
        finger = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
        finger.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                run(real_mode(b"\xeb\xfe"), limits=Limits(seconds=30))
        finally:
            finger.join()
        assert fds() == before


class TestRefusals:
    """Errors that need no KVM."""

    board = SimpleNamespace(memory=GuestMemory([Span("RAM", 0, 1 << 20)], rom_of(b"\xf4")), interrupts=None)

    @pytest.fixture(autouse=True)
    def on_x86_linux(self, monkeypatch):
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(device.os, "uname", lambda: SimpleNamespace(machine="x86_64"))

    def refusal(self, **more):
        before = fds()
        with pytest.raises(BootError) as error:
            run(self.board, **more)
        assert fds() == before
        return str(error.value)

    def test_no_device(self, monkeypatch, tmp_path):
        path = str(tmp_path / "kvm")
        monkeypatch.setattr(uapi, "KVM_DEVICE", path)
        assert self.refusal() == f"{path} does not exist: load the kvm module, or use --engine unicorn"

    def test_no_permission(self, monkeypatch, tmp_path):
        (tmp_path / "kvm").touch(mode=0)
        monkeypatch.setattr(uapi, "KVM_DEVICE", str(tmp_path / "kvm"))
        with without_privilege():
            message = self.refusal()
        assert message.startswith("no permission to open ")
        assert "group kvm" in message

    def test_something_else_at_its_place(self, monkeypatch, tmp_path):
        monkeypatch.setattr(uapi, "KVM_DEVICE", str(tmp_path))
        assert self.refusal() == f"cannot open {tmp_path}: Is a directory; use --engine unicorn"

    def test_a_device_that_is_no_kvm(self, monkeypatch):
        monkeypatch.setattr(uapi, "KVM_DEVICE", os.devnull)
        assert self.refusal().startswith(f"KVM cannot tell its version ({os.devnull}): ")

    @pytest.mark.parametrize(
        ("answers", "message"),
        [
            ({uapi.KVM_GET_API_VERSION: 11}, f"{os.devnull} has API version 11: this engine speaks 12"),
            (
                {uapi.KVM_GET_API_VERSION: 12, uapi.KVM_CHECK_EXTENSION: 0},
                "this host's KVM lacks KVM_CAP_SYNC_REGS, KVM_CAP_READONLY_MEM, KVM_CAP_IMMEDIATE_EXIT: use --engine unicorn",
            ),
        ],
    )
    def test_a_kvm_that_can_too_little(self, monkeypatch, answers, message):
        monkeypatch.setattr(uapi, "KVM_DEVICE", os.devnull)
        monkeypatch.setattr(device, "fcntl", SimpleNamespace(ioctl=lambda _fd, request, _argument: answers[request]))
        assert self.refusal() == message

    def test_no_linux(self, monkeypatch):
        monkeypatch.setattr(sys, "platform", "darwin")
        assert self.refusal() == "the kvm engine needs Linux and this is darwin: use --engine unicorn"

    def test_another_processor(self, monkeypatch):
        monkeypatch.setattr(device.os, "uname", lambda: SimpleNamespace(machine="aarch64"))
        assert "needs an x86_64 host and this is aarch64" in self.refusal()

    def test_instructions_cannot_be_counted(self):
        message = "the kvm engine cannot count instructions: use --max-exits or --timeout"
        assert self.refusal(limits=Limits(instructions=5)) == message

    def test_another_thread(self):
        messages = []
        thread = threading.Thread(target=lambda: messages.append(self.refusal()))
        thread.start()
        thread.join()
        assert messages[0].startswith("the kvm engine runs in the main thread only")
