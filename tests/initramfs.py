"""A small initramfs: a statically linked busybox and a script as /init. `initramfs.py BUSYBOX [MODULE…] > initrd.cpio` writes
it; the kernel modules are loaded in this order. On the kernel's command line `end=poweroff` turns the machine off in the end,
instead of a reset, and `giveup=SECONDS` says how long all of it may take.
"""

import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from pvhboot.loader.cpio import Entry, archive

MARK = "pvhboot-init"  # what the script prints first
_INIT = f"""#!/bin/busybox sh
bb=/bin/busybox
$bb mkdir /proc /sys
$bb mount -t proc proc /proc
kernel_says() {{ echo "$1" > /proc/sys/kernel/printk; }}  # what is of a level below that: it would break into our lines
kernel_says 4
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
echo "{MARK} cmdline $($bb cat /proc/cmdline)"
echo "{MARK} memory $($bb sed -n 's/MemTotal: *//p' /proc/meminfo)"
echo "{MARK} cpus $($bb grep -c ^processor /proc/cpuinfo)"
patience=$($bb sed -n 's/.*giveup=//p' /proc/cmdline)
[ -n "$patience" ] && {{ $bb sleep "${{patience%% *}}"; echo "{MARK} gave up"; $bb reboot -f; }} &
kernel_says 8
for module in /modules/*; do [ -f "$module" ] && $bb insmod "$module"; done
kernel_says 4
for disk in /dev/vd?; do [ -b "$disk" ] && echo "{MARK} disk $disk $($bb head -n 1 "$disk")"; done
for device in /sys/bus/acpi/devices/QEMU*; do [ -e "$device" ] && echo "{MARK} acpi $($bb basename "$device")"; done
$bb sed 's/^/{MARK} interrupt /' /proc/interrupts
kernel_says 8
$bb grep -q end=poweroff /proc/cmdline && $bb poweroff -f
$bb reboot -f
"""


def _entries(busybox: Path, modules: Sequence[Path]) -> list[Entry]:
    directories = [Entry(name, stat.S_IFDIR | 0o755) for name in (b"bin", b"dev", b"modules")]
    files = [Entry(b"modules/%02d" % at, stat.S_IFREG | 0o644, module.read_bytes()) for at, module in enumerate(modules)]
    return [
        *directories,
        *files,
        Entry(b"dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry(b"bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()),
        Entry(b"init", stat.S_IFREG | 0o755, _INIT.encode()),
    ]


def initramfs(busybox: Path, modules: Sequence[Path] = ()) -> bytes:
    """The archive, uncompressed."""
    return b"".join(archive(_entries(busybox, modules)))


if __name__ == "__main__":
    sys.stdout.buffer.write(initramfs(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
