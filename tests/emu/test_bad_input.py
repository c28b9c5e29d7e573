"""Bad input: one clear line on standard error, exit status 2, no traceback, nothing half-written."""

import os
import re
from pathlib import Path

import pytest
from forge_elf import HOSTILE
from host import without_privilege
from pvhboot.emu.cli import main
from pvhboot.shim.stock import default_guest


@pytest.fixture
def kernel(tmp_path):
    path = tmp_path / "kernel"
    path.write_bytes(default_guest(64))
    return path


def fails(capsys, *arguments) -> str:
    """Runs the command, which must fail with one line; gives it."""
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert status == 2, out
    assert err.startswith("pvhboot: ")
    assert err.count("\n") == 1
    assert len(err) > len("pvhboot: ") + 15
    return err


@pytest.mark.parametrize(("make", "message"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
@pytest.mark.parametrize("command", ["boot", "plan"])
def test_hostile_kernel(capsys, tmp_path, command, make, message):
    path = tmp_path / "hostile"
    path.write_bytes(make())
    error = fails(capsys, command, path)
    assert re.search(message, error), error


def test_directory(capsys, tmp_path):
    assert "directory" in fails(capsys, "boot", tmp_path)


def test_missing_kernel(capsys, tmp_path):
    assert "No such file" in fails(capsys, "boot", tmp_path / "none")


def test_unreadable_kernel(capsys, kernel):
    kernel.chmod(0)
    with without_privilege():
        assert "ermission" in fails(capsys, "boot", kernel)


BAD_ARGUMENTS = {
    "memory-word": (["--memory", "lots"], "cannot read the memory size"),
    "memory-too-little": (["--memory", "156K"], "160 KiB to"),
    "memory-too-much": (["--memory", "2T"], "KiB to 1 TiB"),
    "memory-odd": (["--memory", "16385K"], "multiple of 4 KiB"),
    "until-word": (["--until", "soon"], "handoff, exit or console:TEXT"),
    "until-empty-text": (["--until", "console:"], "handoff, exit or console:TEXT"),
    "timeout-0": (["--timeout", "0"], "above 0"),
    "instructions-negative": (["--max-instructions", "-1"], "above 0"),
    "exits-0": (["--max-exits", "0"], "above 0"),
    "initrd-missing": (["--initrd", "/nonexistent"], "No such file"),
    "initrd-directory": (["--initrd", "/"], "a directory"),
    "initrd-device": (["--initrd", "/dev/zero"], "regular file"),
    "module-missing": (["--module", "/nonexistent,line"], "No such file"),
    "append-too-long": (["--append", "x" * 40000], "there is room for"),
    "append-nul": (["--append", "a\0b"], "NUL"),
    "firmware-missing": (["--firmware", "/nonexistent"], "No such file"),
    "firmware-elf": (["--firmware", "/bin/true"], "ELF"),
    "until-odd-bytes": (["--until", "handoff:\udcff"], "handoff, exit or console:TEXT"),
    "firmware-directory": (["--firmware", "/"], "Is a directory"),
    "kvm-counts": (["--engine", "kvm", "--max-instructions", "5"], "cannot count instructions"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS.keys())
def test_bad_argument(capsys, arguments, message):
    assert message in fails(capsys, "boot", *arguments)


def test_initrd_that_does_not_fit(capsys, tmp_path):
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(40 << 20)
    assert "no room" in fails(capsys, "boot", "--memory", "32M", "--initrd", big)


@pytest.mark.parametrize("option", ["--initrd", "--firmware", "kernel", "--stage"])
def test_a_fifo_holds_nobody(capsys, tmp_path, option):
    os.mkfifo(tmp_path / "fifo")
    if option == "--stage":
        assert "regular" in fails(capsys, "build", "-o", tmp_path / "o", option, f"before-handoff={tmp_path / 'fifo'}")
    else:
        assert "regular" in fails(capsys, "boot", *([] if option == "kernel" else [option]), tmp_path / "fifo")


def test_empty_initrd(capsys, tmp_path):
    (tmp_path / "empty").touch()
    assert "empty" in fails(capsys, "boot", "--initrd", tmp_path / "empty")


def test_too_many_modules(capsys, kernel):
    modules = [word for _ in range(513) for word in ("--module", kernel)]
    assert "at most 512" in fails(capsys, "boot", *modules)


def test_kernel_that_does_not_fit(capsys, guest_file):
    assert "does not fit" in fails(capsys, "boot", guest_file("vmlinux-6.1"), "--memory", "32M")


@pytest.mark.parametrize(("size", "message"), [(0, "empty"), (1000, "multiple of 4096"), (17 << 20, "than 16777216 bytes")])
def test_firmware_of_a_bad_size(capsys, tmp_path, size, message):
    (tmp_path / "fw").write_bytes(bytes(size))
    error = fails(capsys, "boot", "--firmware", tmp_path / "fw")
    assert message in error
    assert error.startswith(f"pvhboot: {tmp_path / 'fw'}: ")


def test_firmware_with_another_params_version(capsys, tmp_path):
    rom = bytearray(0x10000)
    rom[:8] = b"PVHB" + (9).to_bytes(4, "little")
    (tmp_path / "fw").write_bytes(rom)
    assert "version 9" in fails(capsys, "boot", "--firmware", tmp_path / "fw")


def test_kvm_absent(capsys, monkeypatch):
    from pvhboot.emu.engines.kvm import uapi

    monkeypatch.setattr(uapi, "KVM_DEVICE", "/nonexistent/kvm")
    assert "does not exist" in fails(capsys, "boot", "--engine", "kvm")


def test_kvm_forbidden(capsys, tmp_path, monkeypatch):
    from pvhboot.emu.engines.kvm import uapi

    device = tmp_path / "kvm"
    device.touch(mode=0)
    monkeypatch.setattr(uapi, "KVM_DEVICE", str(device))
    with without_privilege():
        assert "ermission" in fails(capsys, "boot", "--engine", "kvm")


STAGES = {
    "no-clobbers": ("ret\n", r"my.s:1: .*Clobbers"),
    "unknown-instruction": ("# Clobbers: eax\n    frobnicate eax\n", r"my.s:2: "),
    "undefined-symbol": ("# Clobbers: eax\n    mov eax, NOWHERE\n    ret\n", r"my.s:2: NOWHERE is not defined"),
    "taken-name": ("# Clobbers: eax\nhandoff:\n    ret\n", r"my.s:2: handoff is defined twice"),
    "too-big": ("# Clobbers: nothing\n    ret\n.skip 40000\n", r"my.s: .* do not fit"),
    "no-ret": ("# Clobbers: nothing\n    nop\n", r"my.s: .*does not come back.*STAGE_END"),
    "endless": ("# Clobbers: nothing\n1:  jmp 1b\n", r"my.s: .*does not come back.*limit"),
    "faulting": ("# Clobbers: nothing\n    ud2\n", r"my.s: .*does not come back.*#UD.*my.s:2"),
    "register": ("# Clobbers: eax\n    mov ecx, 5\n    ret\n", r"my.s: .*ecx was"),
    "flags": ("# Clobbers: eax\n    or eax, -1\n    ret\n", r"my.s: .*eflags was"),
    "direction": ("# Clobbers: flags\n    std\n    ret\n", r"my.s: .*eflags was"),
    "stack": ("# Clobbers: eax\n    pop eax\n    push eax\n    push eax\n    ret\n", r"my.s: .*esp comes back"),
    "memory": ("# Clobbers: nothing\n    mov dword ptr [0x5000], 1\n    ret\n", r"my.s: .*4 bytes at 0x5000"),
    "memory-next-to-its-span": (
        "# Clobbers: memory 0x5000-0x5003\n    mov dword ptr [0x5000], 1\n    ret\n",
        r"my.s: .*4 bytes at 0x5000",
    ),
    "rom": ("# Clobbers: nothing\n    mov dword ptr [0xffff0000], 1\n    ret\n", r"my.s: .*ROM at 0xffff0000"),
    "segment": ("# Clobbers: eax\n    mov eax, SEL_DATA32\n    mov fs, eax\n    ret\n", r"my.s: .*segment register"),
    "idt": ("# Clobbers: nothing\n    lidt [0x6000]\n    ret\n", r"my.s: .*IDTR"),
    "debug-register": ("# Clobbers: eax\n    mov dr0, eax\n    ret\n", r"my.s: .*debug register 0"),
    "msr": (
        "# Clobbers: eax, ecx, edx\n    mov ecx, 0x277\n    mov eax, 6\n    mov edx, 6\n    wrmsr\n    ret\n",
        r"my.s: .*IA32_PAT",
    ),
    "what-was-there-anyway": ("# Clobbers: ecx\n    mov eax, 0\n    ret\n", r"my.s: .*eax was"),
    "cr0": ("# Clobbers: eax, flags\n    mov eax, cr0\n    or eax, 0x2\n    mov cr0, eax\n    ret\n", r"my.s: .*cr0 was"),
}


@pytest.mark.parametrize(("source", "message"), STAGES.values(), ids=STAGES.keys())
def test_bad_stage(capsys, tmp_path, monkeypatch, source, message):
    from pvhboot.emu import stagecheck

    monkeypatch.setattr(stagecheck, "_LIMITS", stagecheck._LIMITS._replace(instructions=20_000))
    (tmp_path / "my.s").write_text(source)
    error = fails(capsys, "build", "--stage", f"before-handoff={tmp_path / 'my.s'}", "-o", tmp_path / "fw.bin")
    assert re.search(message, error), error
    assert not (tmp_path / "fw.bin").exists()


def test_a_stage_may_use_what_it_declares(tmp_path):
    (tmp_path / "my.s").write_text(
        "# Clobbers: eax, flags, memory 0x5000-0x5004\n    xor eax, eax\n    push eax\n    pop eax\n"
        "    mov dword ptr [0x5000], 1\n    ret\n"
    )
    assert main(["build", "--stage", f"before-handoff={tmp_path / 'my.s'}", "-o", str(tmp_path / "fw.bin")]) == 0


BAD_BUILDS = {
    "size-odd": (["--size", "100K"], "multiple of 64 KiB"),
    "size-too-large": (["--size", "32M"], "multiple of 64 KiB"),
    "size-unit-forgotten": (["--size", "65536"], "write 64K"),
    "stage-without-slot": (["--stage", "my.s"], "before-handoff=FILE"),
    "stage-unknown-slot": (["--stage", "lunch=my.s"], "no stage named"),
    "stage-missing": (["--stage", "before-handoff=/nonexistent"], "No such file"),
    "stage-binary": (["--stage", "before-handoff=/bin/true"], "UTF-8"),
    "append-without-kernel": (["--append", "x"], "needs --kernel"),
    "memory-without-kernel": (["--memory", "64M"], "needs --kernel"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_BUILDS.values(), ids=BAD_BUILDS.keys())
def test_bad_build(capsys, tmp_path, arguments, message):
    output = tmp_path / "fw.bin"
    assert message in fails(capsys, "build", "-o", output, *arguments)
    assert not output.exists()


def test_output_in_no_directory(capsys, tmp_path):
    assert "cannot write" in fails(capsys, "build", "-o", tmp_path / "none" / "fw.bin")


def test_output_is_a_directory(capsys, tmp_path):
    assert "directory" in fails(capsys, "build", "-o", tmp_path)


def test_output_over_a_device(capsys):
    assert "regular file" in fails(capsys, "build", "-o", "/dev/null")
    assert not os.path.isfile("/dev/null")


@pytest.mark.parametrize("name", ["", "x" * 300])
def test_output_that_is_no_name(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert "cannot write" in fails(capsys, "build", "-o", name)
    assert list(tmp_path.iterdir()) == []


def test_two_outputs_in_one_file(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "twice" in fails(capsys, "build", "-o", "fw.bin", "--listing", "./fw.bin")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--kernel", "--initrd", "--stage", "--module"])
def test_an_input_is_not_overwritten(capsys, tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    Path("guest").write_bytes(default_guest(64))
    Path("initrd").write_bytes(b"initrd")
    Path("my.s").write_text("# Clobbers: nothing\n    ret\n")
    arguments = ["--kernel", "guest", "--initrd", "initrd", "--module", "initrd,x", "--stage", "before-handoff=my.s"]
    name = {"--kernel": "guest", "--initrd": "initrd", "--stage": "my.s", "--module": "initrd"}[option]
    before = Path(name).read_bytes()
    assert "is to be read and written" in fails(capsys, "build", "-o", "out.bin", "--listing", f"./{name}", *arguments)
    assert Path(name).read_bytes() == before
    assert not Path("out.bin").exists()


def test_an_output_may_be_a_symbolic_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert main(["build", "-o", str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").stat().st_size == 0x10000


def test_nothing_is_written_where_one_output_cannot_be(capsys, tmp_path):
    output = tmp_path / "fw.bin"
    fails(capsys, "build", "-o", output, "--listing", tmp_path / "none" / "listing")
    assert list(tmp_path.iterdir()) == []


def test_guests_into_no_directory(capsys, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert "cannot be made a directory" in fails(capsys, "guests", "-o", tmp_path / "file")


def test_inspect_of_a_missing_file(capsys, tmp_path):
    assert "No such file" in fails(capsys, "inspect", tmp_path / "none")


ARGUMENTS = {
    "no-command": ([], "required: COMMAND; see pvhboot --help"),
    "unknown-command": (["frob"], "invalid choice: 'frob'"),
    "unknown-option": (["boot", "--frob"], "unrecognized arguments: --frob; see pvhboot boot --help"),
    "no-output": (["record", "--machine", "pc"], "required: -o/--output; see pvhboot record --help"),
    "number": (["record", "--smp", "x"], "argument --smp: invalid int value: 'x'"),
    "a-firmware-for-several": (["boot", "--machine", "universal"], "build it, and boot --machine q35 --firmware FILE"),
    "unknown-machine": (["boot", "--machine", "vax"], "invalid choice: 'vax'"),
}


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_what_cannot_be_read_of_the_command_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("pvhboot: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_stage_of_the_universal_firmware_is_tried_on_each_of_its_machines(capsys, tmp_path):
    """What is memory of nobody on one is a ROM's on another."""
    (tmp_path / "my.s").write_text("# Clobbers: nothing\n    nop\n    ret\n")
    arguments = ["build", "--machine", "universal", "--stage", f"before-handoff={tmp_path / 'my.s'}"]
    assert main([*arguments, "-o", str(tmp_path / "fw.bin")]) == 0
    capsys.readouterr()
    (tmp_path / "my.s").write_text("# Clobbers: nothing\n    mov byte ptr [0xe0000], 1\n    ret\n")
    assert "0xe0000" in fails(capsys, *arguments, "-o", tmp_path / "other.bin")
    assert not (tmp_path / "other.bin").exists()


@pytest.mark.parametrize("command", ["boot", "plan", "inspect"])
@pytest.mark.parametrize(("name", "shown"), [("na\nme", r"na\nme"), ("a\r\x1b[2J\x85\u2028z", r"a\r\x1b[2J\x85\u2028z")])
def test_a_path_of_several_lines_is_told_in_one(capsys, tmp_path, command, name, shown):
    """Whatever raises the error repeats the path as it is; it is printed in one place."""
    path = tmp_path / name
    assert fails(capsys, command, path).startswith(f"pvhboot: {tmp_path}/{shown}: cannot be opened")
    path.write_bytes(b"#!")
    if command != "inspect":
        assert shown in fails(capsys, command, path)


def test_an_argument_of_several_lines_is_told_in_one(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "kernel", "more\nand more"])
    assert capsys.readouterr().err == r"pvhboot: unrecognized arguments: more\nand more; see pvhboot plan --help" + "\n"
