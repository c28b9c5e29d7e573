"""`pvhboot initrd` as anybody uses it; what it makes is unpacked by Linux, in a plain QEMU, and by the reference tools."""

import hashlib
import lzma
import os
import re
import shutil
import stat
import subprocess

import pytest
from command_line import command, fails
from forge_bzimage import PACKERS
from host import without_privilege
from newc import read_newc
from plain import CMDLINE, run, running

SUFFIXES = {  # and the reference tool that unpacks it
    ".cpio": None,
    ".gz": "gzip",
    ".bz2": "bzip2",
    ".xz": "xz",
    ".lzma": "xz",
    ".lz4": "lz4",
    ".zst": "zstd",
}
INIT = """#!/bin/sh
cd /
busybox find . -xdev -mindepth 1 | while read -r name; do
    echo "told $(busybox stat -c '%n|%f|%h|%s|%u:%g|%t:%T|%Y' "$name")|$(busybox readlink "$name")"
done
for name in */*; do [ -f "$name" ] && echo "sum $(busybox sha256sum "$name")"; done
busybox reboot -f
"""


@pytest.fixture
def tree(tmp_path, guest_file):
    """A root file system that tells what it is."""
    root = tmp_path / "root"
    for directory in ("bin", "data", "proc"):
        (root / directory).mkdir(parents=True)
    shutil.copy(guest_file("busybox"), root / "bin/busybox")
    for name in ("sh", "another"):
        os.link(root / "bin/busybox", root / "bin" / name)
    (root / "bin/ls").symlink_to("busybox")
    (root / "data/file").write_bytes(bytes(range(256)) * 33 + b"odd")
    (root / "data/file").chmod(0o4751)
    (root / "data/empty").touch(0o600)
    os.mkfifo(root / "data/fifo", 0o640)
    (root / "data/tmp").mkdir()
    (root / "data/tmp").chmod(0o1777)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    return root


def expected(root, mtime):
    """What the script is to tell of the tree, by os.lstat."""
    lines = set()
    for path in root.rglob("*"):
        status = path.lstat()
        mode = status.st_mode
        is_directory = stat.S_ISDIR(mode)
        target = os.readlink(path) if stat.S_ISLNK(mode) else ""
        links = 2 + sum(item.is_dir() for item in path.iterdir()) if is_directory else status.st_nlink
        size = "SIZE" if is_directory else status.st_size
        lines.add(f"./{path.relative_to(root)}|{mode:x}|{links}|{size}|0:0|0:0|{mtime}|{target}")
    return lines


def linux(firmware, guest_file, initrd):
    """Options of QEMU for Debian's kernel."""
    return (
        *("-M", "microvm,acpi=off", "-m", "256M", "-bios", firmware("microvm"), "-kernel", guest_file("vmlinux-6.1")),
        *("-initrd", initrd, "-append", f"{CMDLINE} quiet"),
    )


def boot(firmware, guest_file, initrd):
    """What the script tells, after the word in front."""
    text = run(*linux(firmware, guest_file, initrd))
    assert "Initramfs unpacking failed" not in text
    return [re.findall(rf"^{word} (.*)$", text, re.MULTILINE) for word in ("told", "sum")]


@pytest.mark.usefixtures("plain_qemu")
def test_linux_unpacks_what_was_in_the_directory(capsys, tmp_path, monkeypatch, tree, firmware, guest_file):
    """Modes, links, sizes, owners, times, device nodes; the console itself is one of these."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    devices = [f"--device={device}" for device in ("dev/console=c:5:1:0620", "data/disk=b:254:17:0660")]
    command(capsys, "initrd", tree, "-o", tmp_path / "i.cpio.zst", *devices)
    told, sums = boot(firmware, guest_file, tmp_path / "i.cpio.zst")
    shown = {re.sub(r"(\|4\w{3}\|\d+)\|\d+\|", r"\1|SIZE|", line) for line in told}
    (console,) = (line for line in shown if line.startswith("./dev/console|2190|1|0|0:0|5:1|"))  # written to: its time is new
    nodes = {"./data/disk|61b0|1|0|0:0|fe:11|86400|", "./dev|41ed|2|SIZE|0:0|0:0|86400|"}
    (built_in,) = (line for line in shown if line.startswith("./root|"))  # every Linux has it (usr/default_cpio_list)
    assert shown - {console, built_in} == expected(tree, 86400) | nodes
    hashed = {line.split()[1]: line.split()[0] for line in sums}
    assert hashed.keys() == {"bin/another", "bin/busybox", "bin/ls", "bin/sh", "data/empty", "data/file"}
    assert all(hashlib.sha256((tree / name).read_bytes()).hexdigest() == value for name, value in hashed.items())


@pytest.mark.usefixtures("plain_qemu")
def test_linux_unpacks_archives_of_all_kinds_one_after_the_other(capsys, tmp_path, tree, firmware, guest_file):
    """One of each compression, made before or now, and one of none; a later file replaces an earlier one."""
    for suffix in SUFFIXES:
        part = tmp_path / f"part{suffix}"
        (part / "parts").mkdir(parents=True)
        (part / "parts" / suffix[1:]).write_text(f"{suffix} " * 1000)
        (part / "parts/last").write_text(suffix)
        command(capsys, "initrd", part, "-o", tmp_path / f"made{suffix}")
    sources = [tmp_path / f"made{suffix}" for suffix in (".cpio", ".lz4", ".bz2", ".xz", ".lzma", ".gz")]
    line = command(
        capsys, "initrd", *sources, tmp_path / "part.zst", tree, "-o", tmp_path / "all.lz4", "--device=dev/console=c:5:1"
    )
    assert re.search(r"all\.lz4: 8 archives, \d+ entries, \d+ bytes, \d+ as written \(lz4\)$", line)
    _, sums = boot(firmware, guest_file, tmp_path / "all.lz4")
    hashed = {line.split()[1]: line.split()[0] for line in sums}
    wanted = {f"parts/{suffix[1:]}": f"{suffix} " * 1000 for suffix in SUFFIXES} | {"parts/last": ".zst"}
    assert {name: hashlib.sha256(text.encode()).hexdigest() for name, text in wanted.items()}.items() <= hashed.items()


LINUX_REFUSES = {  # what follows a good archive, and what Linux says of it
    "xz-crc64": (lzma.compress, "Input was encoded with settings that are not supported by this XZ decoder"),
    "lz4-frame": (PACKERS["lz4 frame"], "invalid magic at start of compressed archive"),
    "odc": (lambda data: b"070707" + data[6:], "incorrect cpio method used: use -H newc option"),
    "misaligned": (lambda data: bytes(2) + data, "broken padding"),
    "lz4-and-no-zeros": (lambda data: PACKERS["lz4"](data) + data, "Decoding failed"),
    "text": (lambda _: b"junk", "invalid magic at start of compressed archive"),
}


@pytest.mark.usefixtures("plain_qemu")
@pytest.mark.parametrize(("make", "says"), LINUX_REFUSES.values(), ids=LINUX_REFUSES)
def test_what_is_refused_linux_does_not_unpack(capsys, tmp_path, tree, firmware, guest_file, make, says):
    command(capsys, "initrd", tree, "-o", tmp_path / "good.cpio", "--device=dev/console=c:5:1")
    (tmp_path / "tree").mkdir()
    command(capsys, "initrd", tmp_path / "tree", "-o", tmp_path / "more.cpio")
    good, more = ((tmp_path / name).read_bytes() for name in ("good.cpio", "more.cpio"))
    (tmp_path / "bad.img").write_bytes(good + make(more))
    assert "bad.img: the archive at 0x" in fails(capsys, "initrd", tmp_path / "bad.img", "-o", tmp_path / "out.cpio")
    with running(tmp_path, *linux(firmware, guest_file, tmp_path / "bad.img")) as qemu:
        assert qemu.says(f"Initramfs unpacking failed: {says}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_compression_is_what_its_own_tool_reads(capsys, tmp_path, suffix):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(os.urandom(1000) + bytes(9 << 20))
    line = command(capsys, "initrd", tmp_path / "tree", "-o", tmp_path / f"out{suffix}")
    data = (tmp_path / f"out{suffix}").read_bytes()
    if tool := SUFFIXES[suffix]:
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
        assert len(data) < 100_000
        assert line.endswith(
            f", {len(data)} as written ({ {'.lzma': 'lzma', '.gz': 'gzip', '.bz2': 'bzip2'}.get(suffix, tool) })\n"
        )
        data = subprocess.run([tool, "-dc"], input=data, capture_output=True, check=True).stdout
    assert line.startswith(f"{tmp_path}/out{suffix}: 1 entry, {len(data)} bytes")
    assert read_newc(data)[0].data == (tmp_path / "tree/file").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_tree_gives_the_same_bytes(capsys, tmp_path, suffix):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in (0, 1, 2) if name == "one" else (2, 1, 0):
            (tmp_path / name / str(number)).write_bytes(b"%d" % number * 100_000)
        os.utime(tmp_path / name / "0", (1, 1))
        command(capsys, "initrd", tmp_path / name, "-o", tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_devices_without_a_directory_are_an_archive(capsys, tmp_path):
    (tmp_path / "d").mkdir()
    command(capsys, "initrd", tmp_path / "d", "-o", tmp_path / "first.cpio")
    line = command(capsys, "initrd", tmp_path / "first.cpio", "-o", tmp_path / "o.cpio", "--device=a/b=b:1:2")
    assert ": 2 archives, 2 entries, " in line
    data = (tmp_path / "o.cpio").read_bytes()
    assert [member.name for member in read_newc(data[len((tmp_path / "first.cpio").read_bytes()) :])] == [
        b"a",
        b"a/b",
        b"TRAILER!!!",
    ]


INITRD_ERRORS = {
    "suffix": (["d", "-o", "o.zip"], "o.zip: the suffix .zip says nothing about compression: give one of .cpio, .img, .gz"),
    "inside": (["d", "-o", "d/o.cpio"], "d/o.cpio: lies in d, which it is made from"),
    "inside-by-link": (["link", "-o", "d/e/o.cpio"], "lies in link"),
    "itself": ([".", "-o", "o.cpio"], "o.cpio: lies in ., which"),
    "missing": (["none", "-o", "o.cpio"], "none: cannot be opened: No such file"),
    "fifo": (["fifo", "-o", "o.cpio"], "not a regular file"),
    "no-archive": (["text", "-o", "o.cpio"], "text: no cpio archive, plain or compressed, but a text file"),
    "device": (["d", "-o", "o.cpio", "--device", "null"], "cannot read the device 'null'"),
    "device-taken": (["d", "-o", "o.cpio", "--device", "e=c:1:3"], "e: is there already"),
    "device-absurd": (["d", "-o", "o.cpio", "--device", "../e=c:1:3"], "..: cannot be archived"),
    "over-the-input": (["a.cpio", "-o", "a.cpio"], "a.cpio: is to be read and written"),
    "no-directory": (["d", "-o", "none/o.cpio"], "none/o.cpio: cannot write"),
}


@pytest.mark.parametrize(("arguments", "message"), INITRD_ERRORS.values(), ids=INITRD_ERRORS)
def test_initrd_refuses_in_one_line_and_writes_nothing(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "text").write_text("hello\n")
    os.mkfifo(tmp_path / "fifo")
    command(capsys, "initrd", "d", "-o", "a.cpio")
    before = sorted(tmp_path.rglob("*"))
    assert message in fails(capsys, "initrd", *arguments)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", ["yesterday", "-1", "4294967296", "1.5", ""])
def test_a_time_that_cannot_be(capsys, tmp_path, monkeypatch, text):
    (tmp_path / "d").mkdir()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    assert "SOURCE_DATE_EPOCH is " in fails(capsys, "initrd", tmp_path / "d", "-o", tmp_path / "o")


def test_what_cannot_be_read_leaves_no_half_of_an_archive(capsys, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_bytes(bytes(100_000))
    (tmp_path / "d/secret").touch(0)
    (tmp_path / "o.cpio").write_text("before")
    with without_privilege():
        assert "d/secret: cannot be read: Permission denied" in fails(
            capsys, "initrd", tmp_path / "d", "-o", tmp_path / "o.cpio"
        )
    assert (tmp_path / "o.cpio").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "o.cpio"]
