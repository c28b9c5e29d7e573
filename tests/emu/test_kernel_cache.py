"""The cache of kernels from the command line: every command that opens one uses it, and none does with --no-cache."""

import gzip
from pathlib import Path

import pytest
from command_line import command, fails
from pvhboot.emu.cli import main
from pvhboot.emu.vary.setup import Setup
from pvhboot.loader.cache import user_directory
from pvhboot.shim.machines import BARE, MIB
from pvhboot.shim.stock import default_blob, default_guest

COMMANDS = {
    "boot": ["--until", "exit"],
    "compare": ["--engine", "unicorn"],
    "plan": [],
    "timeline": ["--until", "handoff"],
    "trace": ["--limit", "1"],
    "vary": ["--mutants", "--sample", "1", "--jobs", "1"],  # which may find that nobody notices
}


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compressed one, and a cache that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "kernel.gz"
    path.write_bytes(gzip.compress(default_guest(64)))
    return path


def kept() -> list[str]:
    directory = Path(user_directory() or "")
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_uses_the_cache_unless_it_is_told_not_to(kernel: Path, name: str) -> None:
    for options, files in ((["--no-cache"], 0), ([], 2), ([], 2)):  # the image and its entry; it is too new for a memo
        assert main([name, str(kernel), *COMMANDS[name], *options]) in (0, name == "vary")
        assert len(kept()) == files


def test_build_uses_it_too(capsys: pytest.CaptureFixture[str], kernel: Path, tmp_path: Path) -> None:
    roms = []
    for number, options in enumerate((["--no-cache"], [], [])):
        command(capsys, "build", "--kernel", kernel, "-o", tmp_path / str(number), *options)
        roms.append((tmp_path / str(number)).read_bytes())
        assert len(kept()) == (2 if number else 0)
    assert roms[0] == roms[1] == roms[2]


def test_a_report_is_the_same_from_the_cache(capsys: pytest.CaptureFixture[str], kernel: Path) -> None:
    outs = [command(capsys, "boot", kernel, "--until", "exit", "--json") for _ in range(3)]
    assert outs[0] == outs[1] == outs[2]


def test_a_kernel_that_is_none_is_told_alike(capsys: pytest.CaptureFixture[str], kernel: Path) -> None:
    kernel.write_bytes(kernel.read_bytes()[:-400])
    said = [fails(capsys, "plan", kernel, *options) for options in ([], [], ["--no-cache"])]
    assert said[0] == said[1] == said[2]
    assert "truncated gzip data" in said[0]
    assert kept() == []


def test_who_varies_a_boot_in_another_process_uses_it(kernel: Path) -> None:
    setup = Setup(BARE.name, default_blob(BARE).data, str(kernel), 64 * MIB)
    with setup.plan():
        assert kept() == []
    for _ in range(2):
        with setup._replace(cache=user_directory()).plan() as plan:
            assert plan.kernel.image_path is not None
    assert len(kept()) == 2
