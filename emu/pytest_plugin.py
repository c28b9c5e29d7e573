"""The fixtures, options and reports that pvhboot gives to pytest: docs/testing.md. What is slow is imported when a machine is
built."""

import re
import sys
from collections.abc import Generator, Iterator
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

import pytest

from .engines.names import ENGINES

if TYPE_CHECKING:
    from .kit.factory import MachineFactory, WatcherFactory
    from .kit.setup import Store
    from .machine import Machine

TRACES: Final = ("fail", "all", "no")
WATCHERS: Final = pytest.StashKey[list["WatcherFactory"]]()  # in the config: each is asked for a watcher of each machine
_STORE: "Final[pytest.StashKey[Store]]" = pytest.StashKey()
_BASE: Final = pytest.StashKey[Path]()  # the directory of this run
_MACHINES: Final = pytest.StashKey[list["Machine"]]()  # of a test, a module or the session
_INNER: Final = ("pvhboot.", "contextlib")  # modules whose frames are not shown: a checkpoint is a context manager
_COMPARISON: Final = pytest.StashKey[list[str]]()  # in the config: the last one that was made, whole
_ENGINE: Final = "pvh_engine"
_NAME_MAX: Final = 120  # characters of a directory's name
_PLAIN_ID: Final = re.compile(r"[\w./]+(::\w+)*(\[[\w.-]+\])?")  # whose directory's name no other test's becomes


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pvhboot", "machines that boot in a test (pvhboot)")
    group.addoption(
        "--pvh-engine",
        action="append",
        default=[],
        metavar="NAME",
        help=f"run tests that name pvh_engine on this engine only ({', '.join(ENGINES)}; several, or with commas)",
    )
    group.addoption(
        "--pvh-artifacts",
        metavar="DIR",
        help="put what belongs to a failed test's machines into directories of DIR (default: pytest's temporary directory)",
    )
    group.addoption(
        "--pvh-trace",
        choices=TRACES,
        default=TRACES[0],
        help="for which tests those files are written, with a trace of each instruction (default: %(default)s)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[WATCHERS] = []
    for name in _wanted(config):
        if name not in ENGINES:
            raise pytest.UsageError(f"--pvh-engine: no engine named {name!r}; there is: {', '.join(ENGINES)}")


def _wanted(config: pytest.Config) -> list[str]:
    """The engines that --pvh-engine names, each once."""
    return list(dict.fromkeys(name for each in config.getoption("pvh_engine") for name in each.split(",")))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if _ENGINE not in metafunc.fixturenames:
        return
    marks = metafunc.definition.iter_markers("parametrize")
    for names in (mark.args[0] if mark.args else mark.kwargs["argnames"] for mark in marks):
        if _ENGINE in (map(str.strip, names.split(",")) if isinstance(names, str) else names):
            return  # the test says itself on which
    metafunc.parametrize(_ENGINE, _wanted(metafunc.config) or ENGINES, indirect=True, scope="module")


@pytest.fixture(scope="module")
def pvh_engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn: unicorn, and kvm and qemu where they are, which else is a skip with the reason. An engine that
    --pvh-engine names has to be there."""
    from .kit.engines import engine_problem

    name: str = request.param
    if problem := engine_problem(name):
        if name in _wanted(request.config):
            pytest.fail(problem, pytrace=False)
        pytest.skip(problem)
    return name


@pytest.fixture(scope="session")
def _pvh_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What all machines of this run share."""
    from .kit.setup import Store

    stash = request.config.stash
    stash[_STORE] = Store()
    stash[_BASE] = tmp_path_factory.getbasetemp() / "pvhboot"
    yield
    stash[_STORE].close()
    del stash[_STORE]


def _factory(request: pytest.FixtureRequest, engine: str) -> Iterator["MachineFactory"]:
    from .kit.factory import MachineFactory

    stash = request.config.stash
    watchers = stash[WATCHERS]
    factory = MachineFactory(stash[_STORE], engine, request.node.stash.setdefault(_MACHINES, []), watchers)
    yield factory
    factory.close()


@pytest.fixture
def pvh(request: pytest.FixtureRequest, _pvh_run: None) -> Iterator["MachineFactory"]:
    """Builds a machine from keywords (docs/testing.md), on the engine of `pvh_engine` if the test names it, else on unicorn.
    All are closed at the end of the test."""
    engine = request.getfixturevalue(_ENGINE) if _ENGINE in request.fixturenames else ENGINES[0]
    yield from _factory(request, engine)


@pytest.fixture(scope="module")
def pvh_module(request: pytest.FixtureRequest, _pvh_run: None) -> Iterator["MachineFactory"]:
    """As `pvh`, for a fixture of a module: its machines are closed at the end of the module. They are on unicorn if no `engine`
    is given."""
    yield from _factory(request, ENGINES[0])


@pytest.fixture(scope="session")
def pvh_session(request: pytest.FixtureRequest, _pvh_run: None) -> Iterator["MachineFactory"]:
    """As `pvh_module`, for a fixture of the session."""
    yield from _factory(request, ENGINES[0])


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    if f"{__package__}.kit.values" not in sys.modules:
        return None
    from .kit.explanation import explain

    lines = explain(op, left, right)
    if lines is not None:
        config.stash[_COMPARISON] = lines
    return lines


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.excinfo is not None and f"{__package__}.machine" in sys.modules:
        _shorten(item, call)
    comparison = _cut_comparison(item, call)
    report = yield
    if comparison:
        report.sections.append(("pvhboot: what differs", "\n".join(comparison)))
    wanted = item.config.getoption("pvh_trace")
    failed = report.failed and call.when in ("setup", "call")
    machines = _machines_of(item, call.when)
    if failed or (wanted == "all" and call.when == "call"):
        for number, machine in enumerate(machines, 1):
            directory = _directory(item) / (f"machine-{number}" if len(machines) > 1 else "")
            lines = _told(machine, directory, trace=wanted != "no")
            if failed:
                report.sections.append((f"pvhboot: machine {number} of {len(machines)}", "\n".join(lines)))
    for machine in machines:
        machine.failed = None  # of this test; the next one has its own
    return report


def _cut_comparison(item: pytest.Item, call: pytest.CallInfo[None]) -> list[str]:
    """That of which the test has failed, if pytest shows its first lines only: as it does without -vv."""
    lines = item.config.stash.get(_COMPARISON, [])
    item.config.stash[_COMPARISON] = []
    said = "" if call.excinfo is None else str(call.excinfo.value)
    return lines if lines and lines[0] in said and lines[-1].strip() not in said else []


def _told(machine: "Machine", directory: Path, *, trace: bool) -> list[str]:
    """The lines of the report. Whatever goes wrong with it, a full disk, say, does not take the results of the tests along."""
    try:
        from .kit.failure import tell

        return tell(machine, directory, trace=trace)
    except Exception as error:
        return [f"nothing can be told of this machine: {type(error).__name__}: {error}"]


def _shorten(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """A test is told what it did wrong without pvhboot's own frames."""
    from pvhboot.shim.errors import BootError

    assert call.excinfo is not None
    error = call.excinfo.value
    if "_pvh_run" not in getattr(item, "fixturenames", ()) or not isinstance(error, BootError | AssertionError):
        return
    frames, at = [], error.__traceback__
    while at is not None:
        if not str(at.tb_frame.f_globals.get("__name__")).startswith(_INNER):
            frames.append(at)
        at = at.tb_next
    shorter: TracebackType | None = None
    for each in reversed(frames):
        shorter = TracebackType(shorter, each.tb_frame, each.tb_lasti, each.tb_lineno)
    call.excinfo = pytest.ExceptionInfo.from_exception(error.with_traceback(shorter))


def _machines_of(item: pytest.Item, when: str) -> list["Machine"]:
    """Those that the test has built, and those of its module or session that it was given; if its setup has failed, the last
    one that was built for them."""
    own = item.stash.get(_MACHINES, [])
    shared = [machine for node in item.listchain()[:-1] for machine in node.stash.get(_MACHINES, [])]
    given = [one for each in getattr(item, "funcargs", {}).values() for one in (each if isinstance(each, tuple) else (each,))]
    used = [machine for machine in shared if any(machine is each for each in given)]
    return [*(used or (shared[-1:] if when == "setup" else [])), *own]


def _directory(item: pytest.Item) -> Path:
    """That of a test, by its id."""
    chosen = item.config.getoption("pvh_artifacts")
    base = item.config.stash[_BASE] if chosen is None else item.config.invocation_params.dir / chosen
    name = re.sub(r"[^\w.\[\]-]+", "-", item.nodeid)
    if len(name) > _NAME_MAX or not _PLAIN_ID.fullmatch(item.nodeid):
        name = f"{name[-_NAME_MAX:]}-{sha256(item.nodeid.encode()).hexdigest()[:8]}"
    return base / name
