"""What all tests share: where the real guests lie, which engines there are, and no silent gap in CI."""

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from host import GUESTS, guest_problem, kvm_problem

REQUIRE_ALL = "PVHBOOT_TEST_REQUIRE_ALL"  # set by .ci/run: there a skip is a failure


def pytest_configure(config: pytest.Config) -> None:
    """Whoever is started in the background by a shell has SIGINT ignored, and so have those it starts: tests send it. And no
    test uses the user's cache of kernels, or leaves something behind in it: all of a run share one of their own."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        cache = tempfile.TemporaryDirectory(prefix="pvhboot-tests-")
        config.add_cleanup(cache.cleanup)
        os.environ["XDG_CACHE_HOME"] = cache.name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:  # noqa: ARG001
    report = yield
    if report.skipped and os.environ.get(REQUIRE_ALL) and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, where nothing may be: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def guest_file() -> Callable[[str], Path]:
    """The path of a real guest that tests/fetch-guests has brought; skips where it has not."""

    def find(name: str) -> Path:
        if problem := guest_problem(name):
            pytest.skip(problem)
        return GUESTS / name

    return find


@pytest.fixture(params=["unicorn", "kvm"])
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine in turn; KVM only where it is."""
    if request.param == "kvm" and (problem := kvm_problem()):
        pytest.skip(problem)
    name: str = request.param
    return name
