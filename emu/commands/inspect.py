"""`pvhboot inspect`: what a file is, whether it can be PVH-booted, and what every loader makes of it."""

import argparse
import json
import sys
from typing import Final

from pvhboot.loader.inspection import inspect
from pvhboot.loader.picture import FILE, LINE, ZEROS

from ..progress import shown_progress

_IN_ASCII: Final = str.maketrans({FILE: "#", ZEROS: ".", LINE: "-", "…": "..."})


def run(arguments: argparse.Namespace) -> int:
    """Prints what the file is; 1 if it cannot be PVH-booted."""
    with shown_progress(f"unpacking {arguments.file}") as progress:
        inspection = inspect(arguments.file, progress)
    print(json.dumps(inspection.to_json(), indent=2) if arguments.json else _shown(inspection.to_text()))
    return 0 if inspection.bootable else 1


def _shown(text: str) -> str:
    """The text, its picture drawn in ASCII where the output can show no other characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return text.translate(_IN_ASCII)
    return text
