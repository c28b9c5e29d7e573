"""Recordings: the file's form, what is said of a wrong one, `pvhboot record` against QEMU, and boots with one."""

import json
import re
from importlib.resources import files

import pytest
from host import qemu_problem
from pvhboot.emu.cli import main
from pvhboot.loader.recording import RecordedFile, RecordedFunction, Recording, default_recording, parse_recording
from pvhboot.shim.abi.firmware import FW_CFG
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import MACHINES

FW_CFG_MACHINES = [spec for spec in MACHINES.values() if spec.source == FW_CFG]
SMALL = Recording(
    "1.2",
    "q35",
    64 << 20,
    2,
    {5: b"\2", 0x8004: bytes(range(40))},
    {b"etc/a": RecordedFile(100, bytes(range(1, 71)), False), b"etc/b": RecordedFile(8, b"", True)},
    (RecordedFunction(0, 0, b"\x86\x80".ljust(256, b"\0"), bytes(255) + b"\xff"),),
)


def test_a_recording_comes_back_as_it_was():
    text = SMALL.to_json()
    assert parse_recording(text.encode()) == SMALL
    assert parse_recording(text.encode()).to_json() == text
    data = json.loads(text)
    assert data["files"]["etc/a"] == {
        "size": 100,
        "writeable": False,
        "data": [bytes(range(1, 33)).hex(), bytes(range(33, 65)).hex(), bytes(range(65, 71)).hex()],
    }
    assert data["pci"][0]["config"] == ["8680"]


def changed(**fields):
    return json.dumps(json.loads(SMALL.to_json()) | fields)


PCI = {"slot": 0, "function": 0, "config": [], "writable": []}
FILE = {"size": 1, "writeable": False, "data": []}
WRONG = {
    "empty": ("[]", "the recording has no version, or one that is no int"),
    "not-json": ("{", r"no recording: not JSON \(.*\)"),
    "not-text": ("\xff", r"no recording: not JSON \(.*\)"),
    "nested": ("[" * 100_000, r"no recording: not JSON \(.*\)"),
    "version": (changed(version=2), "a recording of version 2: this pvhboot reads version 1"),
    "version-is-true": (changed(version=True), "the recording has no version, or one that is no int"),
    "machine": (changed(machine="vax"), "a recording of the machine 'vax'; there is: .*"),
    "memory": (changed(memory=0), "the recording has the memory 0: 1 to 4503599627370496 is possible"),
    "cpus": (changed(cpus="1"), "the recording has no cpus, or one that is no int"),
    "machine-without-fw-cfg": (changed(machine="bare"), "a recording of the machine 'bare'; there is: microvm, .*"),
    **{
        f"item-key-{name}": (changed(items={key: []}), re.escape(repr(key)) + " is no key of an item: .*")
        for name, key in (
            ("long", "0x10000"),
            ("short", "0x5"),
            ("blank", " 0x0005"),
            ("underscore", "0x0_05"),
            ("lines", "a\nb"),
        )
    },
    "item-data": (changed(items={"0x0005": ["0"]}), "item '0x0005': not bytes in hexadecimal"),
    "item-number": (changed(items={"0x0005": 7}), "item '0x0005': not bytes in hexadecimal"),
    **{
        f"file-name-{kind}": (
            changed(files={name: FILE}),
            f"{name!r} is no name of a file: it has 1 to 55 printable ASCII characters",
        )
        for kind, name in (("latin", "\xe4"), ("long", "a" * 56), ("none", ""))
    },
    "file-name-lines": (
        changed(files={"a\nb": FILE}),
        r"'a\\nb' is no name of a file: it has 1 to 55 printable ASCII characters",
    ),
    "files-too-many": (
        changed(files={f"f{at}": FILE for at in range(0x3FE0)}),
        "the recording has 16352 files: fw_cfg has room for 16351, and etc/e820",
    ),
    "file-size": (changed(files={"a": FILE | {"size": -1}}), "file 'a' has the size -1: 0 to 16777216 is possible"),
    "file-too-small": (changed(files={"a": FILE | {"data": ["0102"]}}), "file 'a' has 2 bytes and the size 1"),
    "file-writeable": (changed(files={"a": FILE | {"writeable": 1}}), "file 'a' has no writeable, or one that is no bool"),
    "file-is-none": (changed(files={"a": None}), "file 'a' has no size, or one that is no int"),
    "pci-slot": (changed(pci=[PCI | {"slot": 32}]), "PCI function 0 has the slot 32: 0 to 31 is possible"),
    "pci-long": (changed(pci=[PCI | {"config": ["00" * 257]}]), "PCI function 0 has 257 bytes of config: there are 256"),
    "pci-twice": (changed(pci=[PCI, PCI]), "the recording has a PCI function twice"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(text, message):
    with pytest.raises(BootError) as caught:
        parse_recording(text.encode("latin-1"))
    assert re.fullmatch(message, str(caught.value))


@pytest.mark.parametrize("spec", FW_CFG_MACHINES, ids=lambda spec: spec.name)
def test_the_recordings_that_come_along_are_small_and_whole(spec):
    recording = default_recording(spec)
    text = files("pvhboot.loader").joinpath("recordings", f"{spec.name}.json").read_text()
    assert recording.to_json() == text
    assert len(text) < 40 << 10
    assert (recording.machine, recording.memory, recording.cpus) == (spec.name, 512 << 20, 1)
    assert (b"etc/table-loader" in recording.files) == spec.acpi
    assert bool(recording.functions) == (spec.chipset is not None)


@pytest.fixture
def qemu():
    if problem := qemu_problem():
        pytest.skip(problem)


@pytest.mark.usefixtures("qemu")
@pytest.mark.parametrize("spec", FW_CFG_MACHINES, ids=lambda spec: spec.name)
def test_a_recording_anew_is_the_one_that_comes_along(spec, tmp_path, capsys):
    path = tmp_path / "recording"
    assert main(["record", "--machine", spec.name, "-o", str(path)]) == 0
    ours = default_recording(spec)
    recording = parse_recording(path.read_bytes())
    assert capsys.readouterr().out == (
        f"{path}: {spec.name} of QEMU {recording.qemu}, 512 MiB, 1 CPU: {len(ours.files)} files, {len(ours.functions)} PCI "
        f"functions, {path.stat().st_size} bytes\n"
    )
    if recording.qemu.partition(".")[0] != ours.qemu.partition(".")[0]:
        pytest.skip(f"QEMU is {recording.qemu}, the recording of {ours.qemu}")
    assert recording._replace(qemu=ours.qemu) == ours


@pytest.mark.usefixtures("qemu")
def test_other_cpus_memory_and_arguments_are_recorded(tmp_path):
    path = tmp_path / "recording"
    arguments = ["--machine", "pc", "--smp", "3", "--memory", "96", "--qemu-arg=-device", "--qemu-arg=vmgenid"]
    assert main(["record", *arguments, "-o", str(path)]) == 0
    recording = parse_recording(path.read_bytes())
    assert (recording.cpus, recording.memory, recording.items[5], recording.items[15]) == (3, 96 << 20, b"\3", b"\3")
    assert recording.files[b"etc/vmgenid_addr"].writeable
    assert not recording.files[b"etc/table-loader"].writeable


BAD_RECORD = {
    "argument": (["--qemu-arg=-nonsense"], "QEMU does not start: -nonsense: invalid option"),
    "daemonize": (["--qemu-arg=-daemonize"], "-daemonize: nobody could end a QEMU in the background"),
    "cpus": (["--smp", "0"], "--smp 0: give 1 to 255"),
    "memory": (["--memory", "512K"], "512 KiB of memory: the machine pc takes 1 MiB to 1 TiB"),
    "other-machine": (["--qemu-arg=-machine", "--qemu-arg=q35"], "this QEMU is no pc: its host bridge is 0x29c08086"),
    "other-memory": (
        ["--qemu-arg=-m", "--qemu-arg=1G"],
        "QEMU has 1 GiB of memory, not 512 MiB: give it by --memory",
    ),
    "file-name": (
        ["--qemu-arg=-fw_cfg", "--qemu-arg=name=opt/ä,string=x"],
        "QEMU's fw_cfg has a file opt/ä: only ASCII can be recorded",
    ),
    "file-name-lines": (
        ["--qemu-arg=-fw_cfg", "--qemu-arg=name=opt/a\nb,string=x"],
        r"'opt/a\nb' is no name of a file: it has 1 to 55 printable ASCII characters",
    ),
    "memory-text": (["--memory", "much"], "cannot read the memory size 'much': write 512M or 5G; a plain number is MiB"),
}


@pytest.mark.usefixtures("qemu")
@pytest.mark.parametrize(("arguments", "message"), BAD_RECORD.values(), ids=BAD_RECORD)
def test_what_cannot_be_recorded_is_one_line(arguments, message, tmp_path, capsys):
    path = tmp_path / "recording"
    assert main(["record", "--machine", "pc", "-o", str(path), *arguments]) == 2
    assert capsys.readouterr().err == f"pvhboot: {message}\n"
    assert not path.exists()


def test_without_qemu_it_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["record", "--machine", "pc", "-o", str(tmp_path / "recording")]) == 2
    assert (
        capsys.readouterr().err == "pvhboot: a recording needs qemu-system-x86_64 on the PATH: install it (qemu-system-x86)\n"
    )


# Boots with one.


@pytest.fixture
def recording_file(tmp_path):
    def write(**fields):
        path = tmp_path / "recording"
        path.write_text(default_recording(MACHINES["microvm-acpi"])._replace(**fields).to_json())
        return str(path)

    return write


def test_its_memory_is_the_default(recording_file, capsys):
    path = recording_file(memory=96 << 20)
    assert main(["boot", "--machine", "microvm-acpi", "--recording", path]) == 0
    assert " with 96 MiB" in capsys.readouterr().out
    assert main(["boot", "--machine", "microvm-acpi", "--recording", path, "--memory", "80"]) == 0
    assert " with 80 MiB" in capsys.readouterr().out


def test_its_tables_are_those_of_the_boot(recording_file, capsys):
    none = recording_file(files={})
    assert main(["boot", "--machine", "microvm-acpi", "--recording", none, "--json"]) == 0
    without = json.loads(capsys.readouterr().out)
    assert main(["boot", "--machine", "microvm-acpi", "--json"]) == 0
    default = json.loads(capsys.readouterr().out)
    assert 3 not in [entry["type"] for entry in without["memmap"]]
    assert 3 in [entry["type"] for entry in default["memmap"]]


def test_a_recording_that_is_not_for_this_boot_is_refused(recording_file, tmp_path, capsys):
    path = recording_file()
    for arguments, message in (
        (["--machine", "q35"], f"{path}: a recording of microvm-acpi: give --machine microvm-acpi"),
        (
            ["--machine", "microvm-acpi", "--engine", "qemu"],
            "--recording is for the engines unicorn and kvm: QEMU tells its firmware what it has itself",
        ),
    ):
        assert main(["boot", "--recording", path, *arguments]) == 2
        assert capsys.readouterr().err == f"pvhboot: {message}\n"
    missing = str(tmp_path / "missing")
    assert main(["boot", "--machine", "q35", "--recording", missing]) == 2
    assert capsys.readouterr().err == f"pvhboot: {missing}: cannot read the recording: No such file or directory\n"


@pytest.mark.parametrize("machine", ["microvm", "pc"])
def test_the_board_has_one_cpu_whatever_was_recorded(machine, tmp_path, capsys):
    """A firmware that would start the others would wait for them, and they never come."""
    recording = default_recording(MACHINES[machine])
    files = {name: file for name, file in recording.files.items() if name != b"etc/table-loader"}
    path = tmp_path / "recording"
    path.write_text(recording._replace(cpus=4, items={**recording.items, 5: b"\4"}, files=files).to_json())
    assert main(["boot", "--machine", machine, "--recording", str(path), "--max-instructions", "100000"]) == 0
    assert "27 of 27 clauses" in capsys.readouterr().out
