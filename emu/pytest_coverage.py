"""A pytest plugin: what of the firmware the machines of a test session execute (--pvh-cov), summed over all of them and over
the workers of pytest-xdist."""

import os
from typing import TYPE_CHECKING, Any, Final

import pytest
from pvhboot.shim.errors import BootError

if TYPE_CHECKING:
    from pvhboot.loader.plan import BootPlan
    from pvhboot.shim.blob import Blob

    from .coverage import Coverage
    from .engines.base import Watcher

_COVERAGE: "Final[pytest.StashKey[Coverage]]" = pytest.StashKey()
_PROBLEM: Final = pytest.StashKey[str]()
_WORKER_KEY: Final = "pvhboot_coverage"  # of what a worker of xdist hands to its controller


def pytest_addoption(parser: pytest.Parser) -> None:
    """--pvh-cov and what belongs to it."""
    group = parser.getgroup("pvhboot")
    group.addoption(
        "--pvh-cov",
        nargs="?",
        const="",
        metavar="FILE",
        help="say what of the firmware the machines executed; FILE: keep it there for `pvhboot coverage`, anew each time",
    )
    group.addoption("--pvh-cov-missing", action="store_const", const=True, help="list what was not executed, with its source")
    group.addoption("--pvh-cov-lcov", metavar="FILE", help="write an lcov tracefile")
    group.addoption("--pvh-cov-fail-under", metavar="PERCENT", type=float, help="fail if less is covered")


def pytest_configure(config: pytest.Config) -> None:
    """Has each machine watched, if it is asked for."""
    path: str | None = config.getoption("pvh_cov")
    if path is None:
        for option in ("--pvh-cov-missing", "--pvh-cov-lcov", "--pvh-cov-fail-under"):
            if config.getoption(option) is not None:
                raise pytest.UsageError(f"{option}: needs --pvh-cov")
        return
    wanted = config.getoption("pvh_cov_fail_under")
    if wanted is not None and not 0 <= wanted <= 100:
        raise pytest.UsageError(f"--pvh-cov-fail-under={wanted:g}: give per cent, 0 to 100")
    from .coverage import Coverage, read_coverage
    from .pytest_plugin import WATCHERS

    if path and os.path.exists(path):  # what follows --pvh-cov may be meant as a test
        try:
            read_coverage([path])
        except BootError as error:
            raise pytest.UsageError(f"--pvh-cov would replace a file that is none of its own: {error}") from None
    coverage = config.stash[_COVERAGE] = Coverage()

    def watcher(_plan: "BootPlan", blob: "Blob", _engine: str) -> "Watcher":
        return coverage.of(blob)

    config.stash[WATCHERS].append(watcher)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of xdist is done: its part. (One that has crashed has none.)"""
    coverage = node.config.stash.get(_COVERAGE, None)
    text = getattr(node, "workeroutput", {}).get(_WORKER_KEY)
    if coverage is not None and text is not None:
        from .coverage import parse_coverage

        coverage.add(parse_coverage(text, "a worker"))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes the files; a worker hands its part on instead."""
    config = session.config
    coverage = config.stash.get(_COVERAGE, None)
    if coverage is None:
        return
    if hasattr(config, "workeroutput"):
        config.workeroutput[_WORKER_KEY] = coverage.to_json()
        return
    from .coverage import describe_own
    from .covered import covered_files, total
    from .lcov import lcov_files
    from .outputs import Data, write_files
    from .report.coverage import too_little

    describe_own(coverage)
    files = covered_files(coverage)
    outputs: list[tuple[str, Data]] = []
    try:
        if path := config.getoption("pvh_cov"):
            outputs.append((path, coverage.to_json().encode()))
        if path := config.getoption("pvh_cov_lcov"):
            outputs += lcov_files(path, files, [str(config.rootpath)])
        write_files(outputs)
    except BootError as error:
        config.stash[_PROBLEM] = str(error)
    wanted, covered = config.getoption("pvh_cov_fail_under"), total(files).per_cent
    if wanted is not None and covered < wanted:
        config.stash[_PROBLEM] = too_little(covered, wanted)
    if _PROBLEM in config.stash and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table."""
    coverage = config.stash.get(_COVERAGE, None)
    if coverage is None:
        return
    from .covered import covered_files
    from .report.coverage import coverage_text

    terminalreporter.write_sep("=", "coverage of the firmware")
    if coverage.roms:
        terminalreporter.write_line(coverage_text(covered_files(coverage), bool(config.getoption("pvh_cov_missing"))))
    else:
        terminalreporter.write_line("no machine of the fixtures pvh, pvh_module, pvh_session has executed anything")
    if problem := config.stash.get(_PROBLEM, ""):
        terminalreporter.write_line(f"pvhboot: {problem}", red=True)
