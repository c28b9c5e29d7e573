"""What the tests in a plain QEMU share: QEMU itself, the firmwares as `pvhboot build` writes them, and what they boot."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from beyond_entry import boot
from browser import Visitor, browser_problem, open_browser
from host import qemu_problem
from initramfs import initramfs
from plain import QBOOT
from pvhboot.emu.cli import main
from pvhboot.emu.clock import Clock
from pvhboot.emu.session import Outcome
from pvhboot.shim.stock import default_guest


@pytest.fixture
def plain_qemu() -> None:
    """Skips where there is no QEMU."""
    if problem := qemu_problem():
        pytest.skip(problem)


@pytest.fixture
def gdb() -> None:
    """Skips where there is no gdb."""
    if shutil.which("gdb") is None:
        pytest.skip("no gdb")


@pytest.fixture
def qboot() -> Path:
    """qboot's ROM; skips where there is none."""
    if not QBOOT.is_file():
        pytest.skip(f"no {QBOOT}: Debian's package qemu-system-data has it")
    return QBOOT


@pytest.fixture(scope="session")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of a firmware by the name that `pvhboot build --machine` knows it by."""
    directory = tmp_path_factory.mktemp("firmware")

    def build(name: str) -> Path:
        path = directory / f"{name}.bin"
        if not path.exists():
            assert main(["build", "--machine", name, "-o", str(path)]) == 0
        return path

    return build


@pytest.fixture(scope="session")
def initrd(tmp_path_factory: pytest.TempPathFactory, guest_file: Callable[[str], Path]) -> Path:
    """Busybox, the script of initramfs.py, and the virtio modules of Debian's 6.1."""
    first = guest_file("modules-6.1/0-virtio_ring.ko")
    path = tmp_path_factory.mktemp("initrd") / "initrd.cpio"
    path.write_bytes(initramfs(guest_file("busybox"), sorted(first.parent.glob("*.ko"))))
    return path


@pytest.fixture(scope="session")
def conformance_guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conformance guest as a file: it prints what it was handed over, and `result`."""
    path = tmp_path_factory.mktemp("guest") / "guest-elf64"
    path.write_bytes(default_guest(64))
    return path


@pytest.fixture
def run_pytest(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Runs tests in a file of that source, with options, beside a conftest.py of another source."""

    def run(source: str, *options: str, conftest: str | None = None) -> pytest.RunResult:
        pytester.makepyfile(test_it=source)
        if conftest is not None:
            pytester.makeconftest(conftest)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options)

    return run


@pytest.fixture
def boot_image(tmp_path: Path) -> Callable[..., tuple[Outcome, Clock]]:
    """Boots the bytes of a kernel as beyond_entry.boot does one by its path."""

    def run(image: bytes, *arguments: Any, **options: Any) -> tuple[Outcome, Clock]:
        (tmp_path / "guest").write_bytes(image)
        return boot(tmp_path / "guest", *arguments, **options)

    return run


@pytest.fixture(scope="module")
def visitors() -> Iterator[Visitor]:
    """The one visitor of a module; skips where there is no browser."""
    if problem := browser_problem():
        pytest.skip(problem)
    with open_browser() as browser:
        yield Visitor(browser)


@pytest.fixture
def visitor(visitors: Visitor) -> Iterator[Visitor]:
    """Opens pages; fails if one of them complains of anything or asks for anything."""
    yield visitors
    found = visitors.complaints.copy(), visitors.requests.copy()
    visitors.rest()
    assert found == ([], [])
