"""A file that is to lie in the guest's memory as it is: opened and measured while planning, read while placing."""

import os
import stat

from pvhboot.shim.errors import BootError
from pvhboot.shim.files import fill, open_file


class Payload:
    """A module's file, held open; `size` is in bytes."""

    def __init__(self, path: str) -> None:
        """BootError if it cannot be read or is empty."""
        self.path = path
        self._fd = -1
        try:
            self._fd = open_file(path)
            status = os.fstat(self._fd)
        except OSError as error:
            raise BootError(f"{path}: cannot read the module: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise BootError(f"{path}: a module must be a regular file")
        if not status.st_size:
            self.close()
            raise BootError(f"{path}: the module is empty")
        self.size: int = status.st_size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills `buffer` from `offset` bytes into the file; BootError if the file has become shorter or cannot be read."""
        try:
            done = fill(self._fd, offset, buffer)
        except OSError as error:
            raise BootError(f"{self.path}: cannot read the module: {error.strerror}") from None
        if done < len(buffer):
            raise BootError(f"{self.path}: the file has become shorter than {self.size} bytes")

    def close(self) -> None:
        """Gives the file back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()
