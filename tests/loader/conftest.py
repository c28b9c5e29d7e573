"""What the tests of inspections share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pvhboot.loader.inspection import Inspection, inspect


@pytest.fixture
def told(tmp_path: Path) -> Callable[[bytes], Inspection]:
    """Inspects bytes."""

    def run(data: bytes) -> Inspection:
        path = tmp_path / "kernel"
        path.write_bytes(data)
        return inspect(path)

    return run


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to overwrite."""
    return tmp_path_factory.mktemp("inspection") / "kernel"
