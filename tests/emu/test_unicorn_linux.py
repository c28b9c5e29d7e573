"""Linux beyond its entry on Unicorn."""

import pytest
from beyond_entry import boot
from initramfs import MARK
from plain import NIGHTLY
from pvhboot.emu.engines.base import Until
from pvhboot.emu.reasons import CONSOLE, RESET
from pvhboot.loader.modules import Module


@pytest.mark.parametrize("kernel", ["vmlinux-6.1", "vmlinux-6.12"])
def test_debian_s_linux_counts_its_ticks(guest_file, kernel):
    """Past banner and memory map, to the delay loop, which goes by the timer's interrupts."""
    outcome, _ = boot(guest_file(kernel), Until("console", "Mount-cache hash table"), memory=512, cmdline="console=ttyS0")
    text = outcome.console.decode()
    assert outcome.run.stop.reason == CONSOLE, text[-2000:]
    assert "Linux version 6.1" in text
    assert "BIOS-e820: [mem 0x0000000000100000-0x000000001fffffff] usable" in text
    assert "49." in text.split("Calibrating delay loop... ")[1][:3], "BogoMIPS at 50 million instructions a second"


if NIGHTLY:  # tests/build-small-kernel takes minutes, and user space some seconds

    @pytest.mark.parametrize(
        ("kernel", "cmdline"), [("vmlinux-small", ""), ("vmlinuz-small", "nolapic"), ("vmlinux-6.1", ""), ("vmlinux-6.12", "")]
    )
    def test_linux_runs_its_init_and_a_shell_in_it_the_same_each_time(guest_file, initrd, kernel, cmdline):
        runs = [
            boot(
                *(guest_file(kernel), Until("exit")),
                memory=512,
                seconds=600,
                cmdline=f"console=ttyS0 panic=-1 reboot=k {cmdline}",
                modules=[Module(str(initrd))],
            )[0]
            for _ in range(2)
        ]
        text = runs[0].console.decode()
        assert f"{MARK} cpus 1" in text, text[-2000:]
        assert runs[0].run.stop.reason == RESET
        assert runs[0].console == runs[1].console
        assert runs[0].run.counts == runs[1].run.counts
