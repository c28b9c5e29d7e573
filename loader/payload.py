"""A file that is to lie in the guest's memory as it is: opened and measured while planning, read while placing."""

from pvhboot.shim.errors import BootError

from .image import FileImage


class Payload(FileImage):
    """A module's file, held open; its errors name it."""

    def __init__(self, path: str) -> None:
        """BootError if it cannot be read or is empty."""
        self.path = path
        try:
            super().__init__(path)
        except BootError as error:
            raise BootError(f"{path}: the module {error}") from None
        if not self.size:
            self.close()
            raise BootError(f"{path}: the module is empty")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fills the whole buffer from the file; BootError if it has become shorter or cannot be read."""
        try:
            super().read_into(offset, buffer)
        except BootError as error:
            raise BootError(f"{self.path}: the module {error}") from None

    def __del__(self) -> None:
        self.close()
