"""A directory of the host, and devices without root: the same tree gives the same entries."""

import os
import stat

import pytest
from archives import LINK, joined, members
from host import without_privilege
from pvhboot.loader.cpio import Entry
from pvhboot.loader.tree import parse_device, read_tree, with_devices
from pvhboot.shim.errors import BootError


@pytest.fixture
def tree(tmp_path):
    """A tree with one of each kind that needs no root."""
    root = tmp_path / "tree"
    for directory in ("bin", "etc/deep", "tmp", "empty"):
        (root / directory).mkdir(parents=True, mode=0o755)
    (root / "tmp").chmod(0o1777)
    (root / "bin/one").write_bytes(b"program" * 1000)
    (root / "bin/one").chmod(0o4755)
    os.link(root / "bin/one", root / "bin/another")
    (root / "bin/sh").symlink_to("one")
    (root / "etc/loop").symlink_to("..")
    (root / "etc/broken").symlink_to("/no/such")
    (root / os.fsdecode(b"etc/deep/\xff\n")).write_bytes(b"odd")
    (root / "etc/deep/none").touch(0o600)
    os.mkfifo(root / "etc/fifo", 0o640)
    return root


def facts(root):
    """What is to be archived, found by os.walk."""
    found = {}
    for top, directories, files in os.walk(os.fsencode(root)):
        for name in directories + files:
            path = os.path.join(top, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, os.fsencode(root))] = (status.st_mode, content)
    return found


def test_a_tree_arrives_as_it_is(tree):
    found = members(*read_tree(str(tree)))
    by_inode = {member.ino: member.data for member in found if member.data}
    assert {member.name: (member.mode, by_inode.get(member.ino, b"")) for member in found} == facts(tree)
    assert [member.nlink for member in found if member.name.startswith(b"bin/")] == [2, 2, 1]


def test_no_fact_of_the_host_gets_in(tree, monkeypatch):
    first = joined(*read_tree(str(tree)))
    scandir = os.scandir

    class Backwards:
        def __init__(self, path):
            self._inner = scandir(path)

        def __enter__(self):
            return sorted(self._inner, key=lambda item: item.name, reverse=True)

        def __exit__(self, *_):
            self._inner.close()

    for path in tree.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1, 2))
            if os.getuid() == 0:
                mode = path.stat().st_mode
                os.chown(path, 1234, 4321)
                path.chmod(stat.S_IMODE(mode))  # a change of owner takes the setuid bit away
    tree.chmod(0o700)
    tree.rename(tree.with_name("elsewhere"))
    monkeypatch.setattr(os, "scandir", Backwards)
    assert joined(*read_tree(str(tree.with_name("elsewhere")) + "/")) == first


@pytest.mark.parametrize(("size", "longer"), [(5, True), (4, False), (0, False), (3 << 20, True)])
def test_a_file_that_changes_while_it_is_read(tmp_path, size, longer):
    path = tmp_path / "tree" / "file"
    path.parent.mkdir()
    path.write_bytes(bytes(size if not longer else 4))
    if not longer:
        path.write_bytes(bytes(6))
    entries = read_tree(str(path.parent))
    path.write_bytes(bytes(size))
    with pytest.raises(BootError, match=rf"{path}: had {4 if longer else 6} bytes, and has changed"):
        joined(*entries)


def test_a_file_that_is_replaced_by_a_link_is_not_followed(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    entries = read_tree(str(tmp_path))
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(BootError, match="cannot be read"):
        joined(*entries)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_unreadable_is_named_in_one_line(tmp_path, kind):
    path = tmp_path / "new\nline"
    path.mkdir() if kind == "directory" else path.touch()
    path.chmod(0)
    with without_privilege(), pytest.raises(BootError, match=r"new\\nline: cannot be read: Permission denied$"):
        joined(*read_tree(str(tmp_path)))


DEVICES = {
    "dev/console=c:5:1": (b"dev/console", stat.S_IFCHR | 0o600, (5, 1)),
    "/dev/vda=b:254:0:0660": (b"dev/vda", stat.S_IFBLK | 0o660, (254, 0)),
    "a=b=c:4095:1048575:7777": (b"a=b", stat.S_IFCHR | 0o7777, (4095, 1048575)),
}


@pytest.mark.parametrize(("text", "expected"), DEVICES.items())
def test_a_device_is_read(text, expected):
    entry = parse_device(text)
    assert (entry.name, entry.mode, entry.device) == expected


@pytest.mark.parametrize(
    "text", ["", "dev/null", "dev/null=c:1", "=c:1:3", "dev/null=p:1:3", "dev/null=c:1:3:99", "x=c:4096:0", "x=c:1:1048576"]
)
def test_a_device_that_cannot_be(text):
    with pytest.raises(BootError, match="the device"):
        parse_device(text)


def test_devices_bring_their_directories():
    entries = with_devices([Entry(b"a", stat.S_IFDIR | 0o700)], [parse_device("a/b/c/d=c:1:3"), parse_device("a/e=c:1:5")])
    assert [(entry.name, stat.S_IMODE(entry.mode)) for entry in sorted(entries)] == [
        (b"a", 0o700),
        (b"a/b", 0o755),
        (b"a/b/c", 0o755),
        (b"a/b/c/d", 0o600),
        (b"a/e", 0o600),
    ]


@pytest.mark.parametrize(("there", "message"), [(b"dev", "dev is no directory"), (b"dev/x", "dev/x: is there already")])
def test_a_device_whose_place_is_taken(there, message):
    with pytest.raises(BootError, match=message):
        with_devices([Entry(there, LINK, b"x")], [parse_device("dev/x=c:1:3")])
