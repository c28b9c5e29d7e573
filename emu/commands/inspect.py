"""`pvhboot inspect`: what a file is, whether it can be PVH-booted, and what every loader makes of it."""

import argparse
import json

from pvhboot.loader.inspection import inspect

from ..progress import shown_progress


def run(arguments: argparse.Namespace) -> int:
    """Prints what the file is; 1 if it cannot be PVH-booted."""
    with shown_progress(f"unpacking {arguments.file}") as progress:
        inspection = inspect(arguments.file, progress)
    print(json.dumps(inspection.to_json(), indent=2) if arguments.json else inspection.to_text())
    return 0 if inspection.bootable else 1
