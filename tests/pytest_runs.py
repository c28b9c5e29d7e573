"""What pytest says of a run of another project's tests."""

import re
from importlib import import_module
from pathlib import Path

import pytest

# A run of pytest in this process forgets what it has imported: the next one would wait for it again.
for name in ("kit.explanation", "kit.failure", "engines.unicorn", "engines.unicorn_cpu"):
    import_module(f"pvhboot.emu.{name}")
import_module("unicorn")


def section(result: pytest.RunResult, number: int = 1) -> str:
    """What is told of a machine of a test that has failed."""
    return re.split(r"^-+ pvhboot: machine \d+ of \d+ -+$", result.stdout.str(), flags=re.MULTILINE)[number]


def files_of(told: str) -> dict[str, Path]:
    """The files that a section names, by name."""
    (directory,) = re.findall(r"^files: (.+)$", told, re.MULTILINE)
    return {path.name: path for path in Path(directory).iterdir()}
