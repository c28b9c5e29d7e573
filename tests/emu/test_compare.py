"""`pvhboot compare`: agreement is found where it is, and a difference is named."""

import json

import pytest
from host import kvm_problem, qemu_problem
from pvhboot.emu.cli import main
from pvhboot.emu.comparison import compare
from pvhboot.emu.engines.base import Limits, Stop, Until
from pvhboot.emu.reasons import HANDOFF, LIMIT
from pvhboot.emu.session import boot, get_engine
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.plan import make_plan
from pvhboot.shim.errors import UnavailableError
from pvhboot.shim.machines import MIB, MICROVM
from pvhboot.shim.stock import default_blob, default_guest


def run(name, cmdline="a", memory=64 * MIB):
    blob = default_blob(MICROVM)
    plan = make_plan(MICROVM, blob.data, Kernel.from_bytes(default_guest(64), "guest"), memory=memory, cmdline=cmdline)
    return boot(plan, blob, get_engine(name), Until(HANDOFF), Limits())


@pytest.fixture
def everything_there():
    if problem := kvm_problem() or qemu_problem():
        pytest.skip(problem)


@pytest.mark.usefixtures("everything_there")
@pytest.mark.parametrize("options", [[], ["--machine", "microvm", "--append", "x"]])
def test_all_engines_agree(capsys, options):
    assert main(["compare", "--json", *options]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is True
    assert list(data["engines"]) == ["unicorn", "kvm", "qemu"]
    assert data["differences"] == []
    assert data["not_run"] == {}
    assert data["accesses_compared"] == ["unicorn", "kvm"]
    assert data["compared"] == ["unicorn", "kvm", "qemu"]


@pytest.mark.parametrize(
    ("other", "what", "one_value", "other_value"),
    [
        ({"cmdline": "b"}, "command line", "b'a'", "b'b'"),
        ({"memory": 65 * MIB}, "memory map entry 2", "size=0x3f00000", "size=0x4000000"),
    ],
)
def test_a_difference_is_named_with_its_values(other, what, one_value, other_value):
    """The same engine twice, which is told two things; the second run is taken for another engine's."""
    comparison = compare([run("unicorn"), run("unicorn", **other)._replace(engine="other")])
    (difference,) = comparison.differences
    assert difference.what == what
    assert one_value in difference.values["unicorn"]
    assert other_value in difference.values["other"]


def test_the_first_access_that_differs_is_named():
    outcome = run("unicorn")
    assert len(outcome.accesses) > 3
    changed = list(outcome.accesses)
    changed[2] = changed[2]._replace(value=5)
    for log in (changed, outcome.accesses[:2]):
        (difference,) = compare([outcome, outcome._replace(engine="other", accesses=tuple(log))]).differences
        assert difference.what == "device access 2"


def test_a_difference_makes_the_status_1(monkeypatch, capsys):
    outcomes = iter([run("unicorn"), run("unicorn", "b")._replace(engine="kvm")])
    monkeypatch.setattr("pvhboot.emu.commands.compare.boot", lambda *_: next(outcomes))
    assert main(["compare", "--engine", "unicorn", "--engine", "kvm"]) == 1
    out = capsys.readouterr().out
    assert "not the same: command line\n  unicorn  b'a'\n  kvm      b'b'\n" in out
    assert "the same on" not in out


@pytest.mark.parametrize(
    ("reaching", "words"),
    [
        ([], "nothing to compare: no engine reached the entry"),
        (["kvm"], "not the same: the end\n  unicorn  limit: never\n  kvm      handoff\n"),
        (["unicorn", "kvm"], "the same on unicorn and kvm: registers, "),
    ],
)
def test_who_has_not_reached_the_entry_is_not_said_to_agree(monkeypatch, capsys, reaching, words):
    def outcome(*arguments):
        engine = arguments[2].name
        found = run("unicorn")._replace(engine=engine)
        if engine in reaching:
            return found
        stop = Stop(LIMIT, "never", 0)
        return found._replace(handoff=None, tables=None, findings=(), run=found.run._replace(stop=stop), ended_as_asked=False)

    monkeypatch.setattr("pvhboot.emu.commands.compare.boot", outcome)
    assert main(["compare", "--engine", "unicorn", "--engine", "kvm"]) == (0 if len(reaching) == 2 else 1)
    out = capsys.readouterr().out
    assert words in out
    assert ("the same on" in out) == (len(reaching) == 2)


def test_one_engine_has_nothing_to_agree_with(capsys):
    assert main(["compare", "--engine", "unicorn", "--engine", "unicorn"]) == 0
    assert "nothing to compare: unicorn alone reached the entry" in capsys.readouterr().out


def test_numbers_in_text_are_left_alone():
    one, other = run("unicorn", "mem=512 root=10"), run("unicorn", "mem=512 root=11")
    (difference,) = compare([one, other._replace(engine="other")]).differences
    assert difference.values == {"unicorn": "b'mem=512 root=10'", "other": "b'mem=512 root=11'"}


def test_an_engine_that_the_host_lacks(monkeypatch, capsys, tmp_path):
    """It is said; and it is an error only for who has asked for it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["compare"]) == 0
    assert "  qemu     not run: the qemu engine needs qemu-system-x86_64" in capsys.readouterr().out
    assert main(["compare", "--engine", "unicorn", "--engine", "qemu"]) == 2
    assert "needs qemu-system-x86_64" in capsys.readouterr().err


def test_bad_input_is_one_line(capsys, tmp_path):
    (tmp_path / "kernel").write_bytes(b"nothing")
    assert main(["compare", str(tmp_path / "kernel")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_engine_at_all_is_no_agreement(monkeypatch, capsys):
    def lacking(*_):
        raise UnavailableError("not here")

    monkeypatch.setattr("pvhboot.emu.commands.compare.boot", lacking)
    assert main(["compare"]) == 1
    assert "nothing to compare: no engine reached the entry" in capsys.readouterr().out
