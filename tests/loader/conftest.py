"""What tests of the loader share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from caches import LONG_AGO
from pvhboot.loader import cache
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


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a cache is to be; there is nothing yet."""
    return tmp_path / "home" / "cache"


@pytest.fixture
def kernel_file(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes a kernel long ago, so that its digest may be remembered."""

    def make(data: bytes, name: str = "kernel") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        os.utime(path, (LONG_AGO, LONG_AGO))
        return path

    return make


@pytest.fixture
def no_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes what was written just now for old."""
    monkeypatch.setattr(cache, "RACY", -cache.RACY)
