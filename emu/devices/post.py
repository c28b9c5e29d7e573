"""The POST port: firmware writes the number of the phase that it has reached, or of the panic that ended it."""

from ..kept import keep_codes


class PostPort:
    """Collects the codes, in order, into `codes`, the last of them."""

    def __init__(self, codes: list[int]) -> None:
        self._codes = codes

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """The last code; 0xff before the first."""
        return self._codes[-1] if self._codes else 0xFF

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """One code."""
        self._codes.append(value)
        keep_codes(self._codes)
