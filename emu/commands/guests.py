"""`pvhboot guests`: the conformance guests as files, for any VMM."""

import argparse
import os

from pvhboot.shim.stock import GUEST_BITS, default_guest, guest_name

from .common import write_files


def run(arguments: argparse.Namespace) -> int:
    """Writes both variants and names them."""
    files = [(os.path.join(arguments.output, guest_name(bits)), default_guest(bits)) for bits in GUEST_BITS]
    write_files(files)
    print("\n".join(path for path, _ in files))
    return 0
