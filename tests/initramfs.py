"""A small initramfs: a statically linked busybox and a script as /init. `initramfs.py BUSYBOX [MODULE…] > initrd.cpio` writes
it; the kernel modules are loaded in this order. On the kernel's command line `end=poweroff` turns the machine off in the end,
instead of a reset, and `giveup=SECONDS` says how long all of it may take.

Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst (the newc format).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

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


def _entry(name: str, mode: int, data: bytes = b"", links: int = 1, device: tuple[int, int] = (0, 0)) -> bytes:
    encoded = name.encode() + b"\0"
    # inode, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (0, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(encoded), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    head += bytes(-len(head) % 4)
    return head + data + bytes(-len(data) % 4)


def initramfs(busybox: Path, modules: Sequence[Path] = ()) -> bytes:
    """The archive, uncompressed."""
    return b"".join(
        (
            _entry("bin", 0o040755, links=2),
            _entry("dev", 0o040755, links=2),
            _entry("dev/console", 0o020600, device=(5, 1)),
            _entry("bin/busybox", 0o100755, busybox.read_bytes()),
            _entry("modules", 0o040755, links=2),
            *(_entry(f"modules/{at:02}", 0o100644, module.read_bytes()) for at, module in enumerate(modules)),
            _entry("init", 0o100755, _INIT.encode()),
            _entry("TRAILER!!!", 0),
        )
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(initramfs(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
