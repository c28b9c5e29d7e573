"""A plain QEMU, as anybody starts it, what its guest says, and what lies in its memory: no engine of pvhboot's in sight."""

import os
import re
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from host import QEMU
from initramfs import MARK
from pvhboot.emu.engines.qemu.qmp import Qmp, QmpGone

QBOOT = Path("/usr/share/qemu/qboot.rom")  # of Debian's package qemu-system-data
NIGHTLY = bool(os.environ.get("PVHBOOT_NIGHTLY"))  # then the tests take their time
PATIENCE = 60.0  # seconds for whatever should happen
# The kernel does not calibrate its TSC: under TCG that hangs now and then, with any firmware. Nor does it watch it: TCG's often
# seems unstable, then Linux patches its own code, and on several processors TCG sometimes fails at that, with any firmware too.
CMDLINE = "console=ttyS0 reboot=t panic=-1 tsc_early_khz=1000000 tsc=reliable"
_POLL = 0.02  # seconds
_IF = 1 << 9  # of EFLAGS: interrupts are on


class Machine(NamedTuple):
    """QEMU's `-M`, the firmware that is made for it, whether it has ACPI, and a virtio disk that suits it ("": none that a
    Debian kernel finds)."""

    qemu: str
    firmware: str
    acpi: bool
    disk: str


MACHINES = {
    "microvm-acpi": Machine("microvm,acpi=on", "microvm-acpi", True, "virtio-blk-device"),
    "microvm": Machine("microvm,acpi=off", "microvm", False, ""),
    "pc": Machine("pc", "pc", True, "virtio-blk-pci"),
    "q35": Machine("q35", "q35", True, "virtio-blk-pci"),
    "pc-no-acpi": Machine("pc,acpi=off", "pc", False, "virtio-blk-pci"),
    "q35-no-acpi": Machine("q35,acpi=off", "q35", False, "virtio-blk-pci"),
}


def disk(path: Path, device: str, *, name: str = "d0", more: str = "") -> list[str]:
    """Options of QEMU for a disk of 1 MiB that is made at `path`; its first line is its own name."""
    path.write_bytes(f"disk {name} of {path}\n".encode().ljust(1 << 20, b"\0"))
    drive = f"file={path},format=raw,if=none,id={name},read-only=on"
    return ["-drive", drive, "-device", ",".join(filter(None, (device, f"drive={name}", more)))]


def _line(arguments: tuple[object, ...]) -> list[str]:
    return [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", *map(str, arguments)]


def run(*arguments: object) -> str:
    """What the guest prints on COM1, to the end of QEMU."""
    line = _line((*arguments, "-serial", "stdio"))
    done = subprocess.run(line, capture_output=True, text=True, errors="replace", timeout=2 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\r", "")


def run_linux(cpus: int, *arguments: object) -> str:
    """The same of a Linux with our initrd. Of some hundreds of boots on several processors TCG loses one within the kernel,
    which dies or hangs then, with any firmware: that one is made once more, and not twice."""
    try:
        text = run(*arguments)
    except subprocess.TimeoutExpired as lost:
        if cpus == 1 or b"Linux version" not in (lost.stdout or b""):
            raise
        return run(*arguments)
    return run(*arguments) if cpus > 1 and parse(text).cmdline is None else text


class Running:
    """A QEMU that runs; its `console` is COM1, `debug` what was written to port 0x402."""

    def __init__(self, process: "subprocess.Popen[bytes]", qmp: Qmp, directory: Path) -> None:
        self.qmp = qmp
        self._process = process
        self._directory = directory

    @property
    def console(self) -> str:
        """What was printed until now."""
        return self._text("console").replace("\r", "")

    @property
    def debug(self) -> str:
        """What was written until now."""
        return self._text("debug")

    @property
    def ended(self) -> bool:
        """Whether QEMU has."""
        return self._process.poll() is not None

    def wait(self, happened: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Whether it does happen, before QEMU ends or the time is over."""
        end = time.monotonic() + seconds
        while not happened():
            if self.ended or time.monotonic() > end:
                return happened()
            time.sleep(_POLL)
        return True

    def says(self, text: str, seconds: float = PATIENCE) -> bool:
        """Whether the console comes to have this text."""
        return self.wait(lambda: text in self.console, seconds)

    @property
    def is_dead(self) -> bool:
        """The first CPU sleeps with interrupts off, or QEMU has ended since the guest has reset the machine."""
        if self.ended:
            return True
        try:
            registers = self.qmp.monitor("info registers")
        except QmpGone:
            return True
        flags = re.search(r"(?:EFL|RFL)=(\w+)", registers)
        assert flags is not None
        return "HLT=1" in registers and not int(flags[1], 16) & _IF

    def memory(self, paddr: int, size: int) -> bytes:
        """Physical memory, as a CPU sees it."""
        path = self._directory / "memory"
        self.qmp.command("pmemsave", val=paddr, size=size, filename=str(path))
        return path.read_bytes()

    def fw_cfg_file(self, name: str) -> bytes:
        """A file of fw_cfg, read by its ports as QEMU's docs/specs/fw_cfg.rst has it."""
        (count,) = struct.unpack(">I", self.fw_cfg(0x19, 4))
        directory = self.fw_cfg(0x19, 4 + 64 * count)[4:]
        for size, key, entry in struct.iter_unpack(">IHxx56s", directory):
            if entry.rstrip(b"\0") == name.encode():
                return self.fw_cfg(key, size)
        raise KeyError(name)

    def fw_cfg(self, key: int, size: int) -> bytes:
        """The first bytes of an item of fw_cfg."""
        self.qmp.monitor(f"o/h 0x510 {key:#x}")
        return bytes(int(self.qmp.monitor("i/b 0x511").split("=")[1], 16) for _ in range(size))

    def _text(self, name: str) -> str:
        path = self._directory / name
        return path.read_text(errors="replace") if path.exists() else ""


@contextmanager
def running(directory: Path, *arguments: object) -> Iterator[Running]:
    """A QEMU with its files in a directory of its own in `directory`; it is killed in the end."""
    directory = Path(tempfile.mkdtemp(dir=directory))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE)
        line = _line(arguments)
        line += ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"]
        line += ["-serial", f"file:{directory / 'console'}", "-debugcon", f"file:{directory / 'debug'}"]
        line += ["-global", "isa-debugcon.iobase=0x402"]
        with subprocess.Popen(line, pass_fds=(theirs.fileno(),)) as process:
            try:
                theirs.close()
                qmp = Qmp(ours)
                qmp.negotiate()
                yield Running(process, qmp, directory)
            finally:
                process.kill()


class Said(NamedTuple):
    """What Linux and the script of initramfs.py have said. `memory` in bytes, `memmap` the usable ranges [start, end) of the
    firmware's map, `disks` their first lines by name, `interrupts` the lines of /proc/interrupts."""

    text: str
    cmdline: str | None
    cpus: int
    memory: int
    memmap: list[tuple[int, int]]
    disks: dict[str, str]
    interrupts: list[str]


def parse(text: str) -> Said:
    """Takes the console apart."""
    marked = dict(re.findall(rf"^{MARK} (cmdline|memory|cpus) (.*)$", text, re.MULTILINE))
    usable = re.findall(r"BIOS-e820: \[mem (0x\w+)-(0x\w+)\] usable", text)
    return Said(
        text,
        marked.get("cmdline"),
        int(marked.get("cpus", 0)),
        int(marked.get("memory", "0 kB").split()[0]) << 10,
        [(int(start, 16), int(last, 16) + 1) for start, last in usable],
        dict(re.findall(rf"^{MARK} disk /dev/(\w+) (.*)$", text, re.MULTILINE)),
        re.findall(rf"^{MARK} interrupt (.*)$", text, re.MULTILINE),
    )


_BLAME = r"ACPI(?: BIOS)?:? (?:Error|Warning|Exception)|Incorrect checksum|\[Firmware (?:Bug|Warn)|MTRRs (?:disabled|all blank)"


def complaints(text: str) -> list[str]:
    """The lines in which Linux blames the firmware or its tables."""
    return [line for line in text.splitlines() if re.search(_BLAME, line)]
