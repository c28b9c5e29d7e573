"""The guest's code as it is kept in shim/prebuilt: assembled, and not yet linked. guest.py makes it, guest_link.py uses it."""

from collections.abc import Mapping
from typing import NamedTuple


class GuestImage(NamedTuple):
    """The guest's code as if it were linked at 0: `relocations` are the offsets of the 32-bit addresses in it, `labels` the
    offsets of its labels. Its last label is `shape`, behind the last byte."""

    code: bytes
    labels: Mapping[str, int]
    relocations: tuple[int, ...]

    def to_json(self) -> str:
        """All but the code."""
        import json

        return json.dumps({"labels": self.labels, "relocations": self.relocations}, indent=1) + "\n"


def image_from_json(code: bytes, text: str) -> GuestImage:
    """The inverse of `to_json`."""
    import json

    data = json.loads(text)
    return GuestImage(code, data["labels"], tuple(data["relocations"]))


def get_address(code: bytes | bytearray, at: int) -> int:
    """The address at an offset."""
    return int.from_bytes(code[at : at + 4], "little")


def put_address(code: bytearray, at: int, address: int) -> None:
    """Writes the address at an offset."""
    code[at : at + 4] = address.to_bytes(4, "little")
