"""A small initramfs: a statically linked busybox and a script as /init. `initramfs.py BUSYBOX > initrd.cpio` writes it.

Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst (the newc format).
"""

import sys
from pathlib import Path

MARK = "pvhboot-init"  # what the script prints first
_INIT = f"""#!/bin/busybox sh
/bin/busybox mkdir /proc
/bin/busybox mount -t proc proc /proc
echo "{MARK} cmdline $(/bin/busybox cat /proc/cmdline)"
echo "{MARK} memory $(/bin/busybox sed -n 's/MemTotal: *//p' /proc/meminfo)"
echo "{MARK} cpus $(/bin/busybox grep -c ^processor /proc/cpuinfo)"
/bin/busybox grep -q end=poweroff /proc/cmdline && /bin/busybox poweroff -f
/bin/busybox reboot -f
"""


def _entry(name: str, mode: int, data: bytes = b"", links: int = 1, device: tuple[int, int] = (0, 0)) -> bytes:
    encoded = name.encode() + b"\0"
    # inode, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (0, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(encoded), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    head += bytes(-len(head) % 4)
    return head + data + bytes(-len(data) % 4)


def initramfs(busybox: Path) -> bytes:
    """The archive, uncompressed."""
    return b"".join(
        (
            _entry("bin", 0o040755, links=2),
            _entry("dev", 0o040755, links=2),
            _entry("dev/console", 0o020600, device=(5, 1)),
            _entry("bin/busybox", 0o100755, busybox.read_bytes()),
            _entry("init", 0o100755, _INIT.encode()),
            _entry("TRAILER!!!", 0),
        )
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(initramfs(Path(sys.argv[1])))
