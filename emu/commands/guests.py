"""`pvhboot guests`: the library of conformance guests as files, with a manifest, for any VMM."""

import argparse
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pvhboot.loader.sizes import show_size
from pvhboot.shim.abi.devices import COM1_PORT, DEBUG_EXIT_PORT
from pvhboot.shim.errors import BootError
from pvhboot.shim.guest_layout import GUEST_ELF_ENTRY, GUEST_FORMAT, GUEST_FREEBSD_HALT, GUEST_NO_STACK
from pvhboot.shim.guest_library import LIBRARY, Guest, guest
from pvhboot.shim.stock import guest_file_name, guest_image

from ..outputs import write_files

MANIFEST = "guests.json"
_EXIT_VALUES = {
    "0": "every check is met",
    f"1-{GUEST_ELF_ENTRY - 1}": "so many checks have failed",
    f"{GUEST_ELF_ENTRY}": "entered where the ELF header says, not where the note does",
    f"{GUEST_FREEBSD_HALT}": "FreeBSD would have stopped; the last line says why",
    f"{GUEST_NO_STACK}": "ss does not reach what ds does; nothing is printed",
}


def run(arguments: argparse.Namespace) -> int:
    """Writes the guests that are named, or all, and lists them."""
    if arguments.output is None and not arguments.list and not arguments.json:
        raise BootError("name a directory for the guests with -o DIR, or look at their list with --list")
    if arguments.output is not None and arguments.list:
        raise BootError("--list writes nothing: leave out either that or -o")
    chosen = [guest(name) for name in dict.fromkeys(arguments.name)] or LIBRARY
    files = {one.name: one.build(guest_image()) for one in chosen}
    manifest = json.dumps(_manifest(chosen, files), indent=2)
    if arguments.output is not None:
        directory = arguments.output
        try:
            os.makedirs(directory, exist_ok=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BootError(f"{directory or 'an output without a name'}: cannot be made a directory: {reason}") from None
        written = [(os.path.join(directory, guest_file_name(name)), data) for name, data in files.items()]
        write_files([*written, (os.path.join(directory, MANIFEST), f"{manifest}\n".encode())])
    print(manifest if arguments.json else _table(chosen))
    if arguments.output is not None and not arguments.json:
        count = len(chosen)
        print(f"{count} {'guest' if count == 1 else 'guests'} and {MANIFEST} written to {arguments.output}")
    return 0


def _manifest(guests: Sequence[Guest], files: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "format": GUEST_FORMAT,
        "serial_port": COM1_PORT,
        "debug_exit_port": DEBUG_EXIT_PORT,
        "exit_values": _EXIT_VALUES,
        "guests": [_entry(one, files[one.name]) for one in guests],
    }


def _entry(one: Guest, data: bytes) -> dict[str, Any]:
    relocation = one.recipe.relocation
    return {
        "name": one.name,
        "file": guest_file_name(one.name),
        "shows": one.shows,
        "class": one.recipe.bits,
        "memory": one.memory,
        "relocatable": None if relocation is None else relocation._asdict(),
        "expected": "refused" if one.reason else "boots",
        "reason": one.reason or None,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _table(guests: Sequence[Guest]) -> str:
    width = max(len(one.name) for one in guests)
    rows = [("name", "memory", "expected", "what is special about it")]
    rows += [(one.name, show_size(one.memory), "refused" if one.reason else "boots", one.shows) for one in guests]
    return "\n".join(f"{name:<{width}}  {memory:>8}  {expected:<8}  {shows}" for name, memory, expected, shows in rows)
