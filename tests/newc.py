"""Reads newc archives by Linux Documentation/driver-api/early-userspace/buffer-format.rst alone: no code of pvhboot's."""

from typing import NamedTuple


class Member(NamedTuple):
    """An entry as it stands in an archive."""

    name: bytes
    data: bytes
    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    mtime: int
    maj: int
    min: int
    rmaj: int
    rmin: int


def read_newc(archive: bytes) -> list[Member]:
    """The members of one archive, the trailer last; nothing but zeros may follow that."""
    members: list[Member] = []
    at = 0
    while not members or members[-1].name != b"TRAILER!!!":
        assert archive[at : at + 6] == b"070701"
        ino, mode, uid, gid, nlink, mtime, size, major, minor, rmaj, rmin, name_size, check = (
            int(archive[at + 6 + 8 * field : at + 14 + 8 * field], 16) for field in range(13)
        )
        assert check == 0
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        assert b"\0" not in name[:-1]
        start = (at + 110 + name_size + 3) // 4 * 4
        data = archive[start : start + size]
        assert len(data) == size
        members.append(Member(name[:-1], data, ino, mode, uid, gid, nlink, mtime, major, minor, rmaj, rmin))
        at = (start + size + 3) // 4 * 4
        assert not any(archive[start + size : at])
    assert not any(archive[at:])
    assert len(archive) % 4 == 0
    return members
