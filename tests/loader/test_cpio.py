"""Archives: what is written is newc to the letter; what Linux would not take is refused."""

import random
import stat

import pytest
from archives import DIRECTORY, FILE, LINK, joined, members
from pvhboot.loader.cpio import Entry
from pvhboot.shim.errors import BootError


def test_one_file_to_the_byte():
    assert (
        joined(Entry(b"etc", FILE, b"hello"), mtime=0x12345678)
        == (
            b"070701"
            b"00000001000081a4000000000000000000000001"  # inode, mode, uid, gid, links
            b"12345678000000050000000000000000"  # mtime, size, device
            b"00000000000000000000000400000000"  # device of a node, length of the name, checksum
            b"etc\0\0\0hello\0\0\0"
            b"070701"
            b"0000000000000000000000000000000000000001"
            b"00000000000000000000000000000000"
            b"0000000000000000" + b"0000000b00000000"
            b"TRAILER!!!\0\0\0\0"
        )
    )


def test_entries_are_sorted_by_bytes_and_a_directory_comes_before_what_is_in_it():
    names = [b"a/z", b"a-b", b"a", b"\xff", b"B", b"a/\xc3\xa4"]
    found = members(*(Entry(name, DIRECTORY if name == b"a" else FILE) for name in names))
    assert [member.name for member in found] == [b"B", b"a", b"a-b", b"a/z", b"a/\xc3\xa4", b"\xff"]
    assert [member.ino for member in found] == list(range(1, 7))


@pytest.mark.parametrize("size", range(6))
def test_all_is_padded_to_four_bytes(size):
    for length in range(1, 6):
        (found, other) = members(Entry(b"n" * length, FILE, b"d" * size), Entry(b"z", FILE, b"more"))
        assert (found.name, found.data, other.data) == (b"n" * length, b"d" * size, b"more")


def test_the_last_name_of_a_file_carries_its_data():
    """usr/gen_init_cpio.c says so in as many words; the kernel makes the links of those before."""
    entries = [Entry(name, FILE, b"data", file=(1, 77)) for name in (b"c", b"a", b"b")]
    found = members(*entries, Entry(b"aa", FILE, b"own"), Entry(b"d", FILE, b"x", file=(2, 77)))
    assert [(member.name, member.data, member.nlink, member.ino) for member in found] == [
        (b"a", b"", 3, 1),
        (b"aa", b"own", 1, 2),
        (b"b", b"", 3, 1),
        (b"c", b"data", 3, 1),
        (b"d", b"x", 1, 3),
    ]


def test_nodes_links_and_directories():
    fifo, socket, disk = stat.S_IFIFO | 0o600, stat.S_IFSOCK | 0o700, stat.S_IFBLK | 0o660
    found = members(
        Entry(b"d", DIRECTORY),
        Entry(b"d/disk", disk, device=(254, 0x12345)),
        Entry(b"d/fifo", fifo),
        Entry(b"d/link", LINK, b"../else where"),
        Entry(b"d/socket", socket),
    )
    assert [(member.mode, member.nlink, member.data, member.rmaj, member.rmin) for member in found] == [
        (DIRECTORY, 2, b"", 0, 0),
        (disk, 1, b"", 254, 0x12345),
        (fifo, 1, b"", 0, 0),
        (LINK, 1, b"../else where", 0, 0),
        (socket, 1, b"", 0, 0),
    ]
    assert {member[4:6] + member[8:10] for member in found} == {(0, 0, 0, 0)}  # owner, and the host's device


class Huge:
    size = 1 << 32

    def chunks(self):
        raise AssertionError


REFUSED = {
    "absolute": ([Entry(b"/etc", FILE)], "cannot be archived"),
    "parent": ([Entry(b"a/../b", FILE)], "cannot be archived"),
    "dot": ([Entry(b".", DIRECTORY)], "cannot be archived"),
    "empty": ([Entry(b"", FILE)], "an empty name"),
    "nul": ([Entry(b"a\0b", FILE)], r"a\\x00b: cannot be archived"),
    "trailer": ([Entry(b"TRAILER!!!", FILE)], "ends an archive"),
    "newline": ([Entry(b"a\nb/", FILE)], r"^a\\nb/: cannot"),
    "long": ([Entry(b"a/" * 2047 + b"bc", FILE)], "a name of 4096 bytes: Linux takes 4095"),
    "twice": ([Entry(b"a", FILE), Entry(b"b", FILE), Entry(b"a", DIRECTORY)], "a: is to be archived twice"),
    "huge": ([Entry(b"a", FILE, Huge())], "4294967296 bytes.*less than 4 GiB"),
    "link-to-nothing": ([Entry(b"a", LINK)], "a path of 0 bytes"),
    "link-too-long": ([Entry(b"a", LINK, b"x" * 4096)], "a path of 4096 bytes"),
}


@pytest.mark.parametrize(("entries", "message"), REFUSED.values(), ids=REFUSED)
def test_what_linux_would_not_take_is_refused(entries, message):
    with pytest.raises(BootError, match=message):
        joined(*entries)


def test_the_longest_name_and_target_are_taken():
    name = b"a/" * 2047 + b"b"
    assert members(Entry(name, LINK, b"x" * 4095))[0].data == b"x" * 4095


def test_the_order_of_the_entries_does_not_matter():
    entries = [Entry(b"%d" % number, FILE, b"same", file=(1, number // 3)) for number in range(12)]
    shuffled = random.Random(1).sample(entries, len(entries))
    assert joined(*entries) == joined(*shuffled)
