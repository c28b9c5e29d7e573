"""Files that are written whole or not at all."""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from pvhboot.shim.errors import BootError

Data = bytes | Callable[[IO[bytes]], None]  # what a file is to hold, or what writes it, piece by piece


def require_outputs(paths: Sequence[str], inputs: Sequence[str] = ()) -> list[str]:
    """Where the files lie that are to be written: for who knows their names long before what is to be in them. BootError if one
    is no regular file, is named twice, or is one of the `inputs`."""
    read = [os.path.realpath(path) for path in inputs]
    targets = [os.path.realpath(path) for path in paths]
    for path, target in zip(paths, targets, strict=True):
        with _writing(path):
            _require_target(path, target)
        if targets.count(target) > 1:
            raise BootError(f"{path}: is to be written twice")
        if target in read:
            raise BootError(f"{path}: is to be read and written: name another output")
    return targets


def write_files(files: Sequence[tuple[str, Data]], inputs: Sequence[str] = ()) -> None:
    """Writes all files or none: each goes to a temporary name beside it first, and all are renamed at the end.

    BootError if one cannot be written, or as of `require_outputs`.
    """
    targets = require_outputs([path for path, _ in files], inputs)
    if not targets:
        return
    import tempfile

    temporaries: list[str] = []
    try:
        for (path, data), target in zip(files, targets, strict=True):
            with _writing(path):
                descriptor, temporary = tempfile.mkstemp(prefix=".pvhboot-", dir=os.path.dirname(target))
                temporaries.append(temporary)
                with os.fdopen(descriptor, "wb") as file:
                    if isinstance(data, bytes):
                        file.write(data)
                    else:
                        data(file)
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(temporary, 0o666 & ~umask)
        for (path, _), target in zip(files, targets, strict=True):
            with _writing(path):
                os.replace(temporaries[0], target)
                del temporaries[0]
    finally:
        for temporary in temporaries:
            os.unlink(temporary)


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BootError(f"{path or 'an output without a name'}: cannot write: {error.strerror}") from None


def _require_target(path: str, target: str) -> None:
    """A new name in a directory, or a regular file; raises BootError, or OSError for a name that cannot be."""
    directory = os.path.dirname(target)
    if not path or not os.path.isdir(directory):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if not os.access(directory, os.W_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise BootError(f"{path}: is a directory or a device: name a regular file")
