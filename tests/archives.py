"""Archives for tests: their entries' modes, one joined to its bytes, and read back by the reader that is not ours."""

import stat

from newc import read_newc
from pvhboot.loader.cpio import archive

FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


def joined(*entries, **more):
    return b"".join(archive(entries, **more))


def members(*entries, **more):
    *found, trailer = read_newc(joined(*entries, **more))
    assert trailer[1:] == (b"", 0, 0, 0, 0, 1, 0, 0, 0, 0, 0)
    return found
