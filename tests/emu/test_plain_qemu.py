"""The blob as anybody uses it: on the command line of a plain QEMU, with no pvhboot in sight, to user space and out again."""

import re
import subprocess

import pytest
from host import QEMU, qemu_problem
from initramfs import MARK, initramfs
from pvhboot.emu.cli import main
from pvhboot.loader.sizes import parse_memory
from pvhboot.shim.machines import MIB

CMDLINE = "console=ttyS0 reboot=t panic=-1"


def built(tmp_path_factory, machine):
    path = tmp_path_factory.mktemp("firmware") / f"{machine}.bin"
    assert main(["build", "--machine", machine, "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def firmware(tmp_path_factory):
    return built(tmp_path_factory, "microvm")


@pytest.fixture(scope="module")
def acpi_firmware(tmp_path_factory):
    return built(tmp_path_factory, "microvm-acpi")


@pytest.fixture(scope="module")
def initrd(tmp_path_factory, guest_file):
    path = tmp_path_factory.mktemp("initrd") / "initrd.cpio"
    path.write_bytes(initramfs(guest_file("busybox")))
    return path


def qemu(*arguments, acpi="off"):
    """What the guest prints, to the end of QEMU."""
    if problem := qemu_problem():
        pytest.skip(problem)
    line = [QEMU, "-M", f"microvm,acpi={acpi}", "-nodefaults", "-display", "none", "-no-reboot", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("dma", ["on", "off"])
@pytest.mark.parametrize("memory", ["96M", "512M", "3G", "5G"])
@pytest.mark.parametrize("kernel", ["vmlinux-6.1", "vmlinux-6.12"])
def test_debian_reaches_user_space(guest_file, firmware, initrd, kernel, memory, dma):
    said = qemu(
        *("-bios", firmware, "-kernel", guest_file(kernel), "-initrd", initrd, "-append", CMDLINE, "-m", memory),
        *("-global", f"fw_cfg_io.dma_enabled={dma}", "-serial", "stdio"),
    )
    assert f"{MARK} cmdline {CMDLINE}\n" in said.replace("\r", "")
    total = re.search(rf"{MARK} memory (\d+) kB", said)
    assert total is not None
    # The kernel, its page structures and what it reserves take the rest.
    assert parse_memory(memory) - int(total[1]) * 1024 < 50 * MIB + parse_memory(memory) // 32
    usable = [(int(a, 16), int(b, 16)) for a, b in re.findall(r"BIOS-e820: \[mem (0x\w+)-(0x\w+)\] usable", said)]
    assert usable[:2] == [(0, 0x9FFFF), (0x100000, min(parse_memory(memory), 3 << 30) - 1)]


# Pairwise. The kernel does not calibrate its TSC: under TCG that hangs now and then, with any firmware.
@pytest.mark.parametrize(
    ("kernel", "memory", "cpus", "dma"),
    [
        ("vmlinux-6.1", "96M", 1, "on"),
        ("vmlinux-6.1", "512M", 4, "off"),
        ("vmlinux-6.1", "3G", 4, "on"),
        ("vmlinux-6.1", "5G", 1, "off"),
        ("vmlinux-6.12", "96M", 4, "off"),
        ("vmlinux-6.12", "512M", 1, "on"),
        ("vmlinux-6.12", "3G", 1, "off"),
        ("vmlinux-6.12", "5G", 4, "on"),
    ],
)
def test_debian_with_acpi_finds_its_cpus_and_turns_off(guest_file, acpi_firmware, initrd, kernel, memory, cpus, dma):
    said = qemu(
        *("-bios", acpi_firmware, "-kernel", guest_file(kernel), "-initrd", initrd, "-m", memory, "-smp", cpus),
        *("-append", f"{CMDLINE} tsc_early_khz=1000000 end=poweroff", "-serial", "stdio"),
        *("-global", f"fw_cfg_io.dma_enabled={dma}"),
        acpi="on",
    )
    assert f"{MARK} cpus {cpus}\n" in said.replace("\r", "")
    assert "ACPI: Using ACPI (MADT) for SMP configuration information" in said
    assert "reboot: Power down" in said
    assert not re.findall(r"ACPI (?:BIOS )?(?:Error|Warning)|Checksum|\[Firmware (?:Bug|Warn)", said)


@pytest.mark.parametrize(
    ("kernel", "memory", "panic"),
    [
        ("vmlinuz-6.1", "128M", "0xf0 NO_KERNEL"),  # a bzImage as it is: QEMU finds no PVH entry in it
        ("xen-shim", "128M", "0xf2 INITRD_RAM"),  # has a Multiboot header, which QEMU prefers: then it has no initrd as such
        ("vmlinux-6.1", "16M", "0xf4 KERNEL_RAM"),  # QEMU loads it all the same
        ("vmlinux-6.1", "32M", "0xf4 KERNEL_RAM"),
    ],
)
def test_what_cannot_boot_is_a_named_panic(firmware, tmp_path, guest_file, kernel, memory, panic):
    if problem := qemu_problem():
        pytest.skip(problem)
    log = tmp_path / "debug"
    line = [QEMU, "-M", "microvm,acpi=off", "-nodefaults", "-display", "none", "-m", memory]
    line += ["-debugcon", f"file:{log}", "-global", "isa-debugcon.iobase=0x402"]
    process = subprocess.Popen([*line, "-bios", str(firmware), "-kernel", str(guest_file(kernel))])
    try:
        for _ in range(100):
            if log.is_file() and log.read_text().endswith("\n"):
                break
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.1)
    finally:
        process.kill()
        process.wait()
    assert log.read_text().startswith(f"pvhboot panic {panic}: ")
