"""pytest --pvh-cov in another project: summed over tests and workers, written where it was asked for, and no file lost."""

import re
from importlib import import_module

import pytest
from pvhboot.emu.coverage import read_coverage
from pvhboot.emu.covered import covered_files, total
from pvhboot.shim.machines import BARE
from pvhboot.shim.stock import default_blob

pytest_plugins = ["pytester"]

# A run of pytest in this process forgets what it has imported: the next one would wait for it again.
for name in ("commands.coverage", "engines.unicorn", "engines.unicorn_cpu"):
    import_module(f"pvhboot.emu.{name}")
import_module("unicorn")

TESTS = """
import pytest

@pytest.mark.parametrize("machine", ["bare", "microvm"])
def test_it_boots(pvh, machine):
    pvh(machine=machine).run_until_handoff()

def test_a_command_line_too(pvh):
    pvh(append="a line").run_until_handoff()
"""


def table(result):
    """What is said behind the tests, to the row of the total."""
    text = result.stdout.str()
    return re.search(r"^=+ coverage of the firmware =+\n(.*?^total .*?)$", text, re.MULTILINE | re.DOTALL).group(1)


def test_it_is_summed_over_the_tests(run_pytest, pytester):
    result = run_pytest(TESTS, "--pvh-cov=it.cov", "--pvh-cov-lcov=it.info")
    result.assert_outcomes(passed=3)
    coverage = read_coverage([str(pytester.path / "it.cov")])
    assert [rom.name for rom in coverage.roms] == ["bare", "microvm"]
    assert max(coverage.roms[0].executed.values()) == 2
    figures = total(covered_files(coverage))
    assert re.search(rf"^total +{figures.executed} of {figures.instructions} +{figures.gone} of", table(result), re.MULTILINE)
    assert (pytester.path / "it.info").read_text().count("end_of_record") == len(covered_files(coverage))


def test_a_rom_of_a_file_is_called_as_that(run_pytest, pytester):
    (pytester.path / "own.rom").write_bytes(default_blob(BARE).data[:-1] + b"\x01")
    result = run_pytest('def test_it(pvh):\n    pvh(firmware="own.rom").run_until_handoff()\n', "--pvh-cov")
    assert re.search(r"^own\.rom\.lst +\d+ of", table(result), re.MULTILINE)


def test_workers_say_the_same(run_pytest, pytester):
    pytest.importorskip("xdist")
    alone = run_pytest(TESTS, "--pvh-cov=alone.cov")
    result = pytester.runpytest_subprocess("-n", "2", "--pvh-cov=it.cov")
    result.assert_outcomes(passed=3)
    assert table(result) == table(alone)
    one, other = (read_coverage([str(pytester.path / name)]) for name in ("alone.cov", "it.cov"))
    assert covered_files(one) == covered_files(other)


def test_what_is_missing_is_listed_on_request(run_pytest):
    assert "not executed" not in run_pytest(TESTS, "--pvh-cov").stdout.str()
    result = run_pytest(TESTS, "--pvh-cov", "--pvh-cov-missing")
    result.stdout.fnmatch_lines(["panic.s", "     8  not executed  cld"])


@pytest.mark.parametrize(("wanted", "status"), [("10", 0), ("99", 1)])
def test_too_little_fails(run_pytest, wanted, status):
    result = run_pytest(TESTS, "--pvh-cov", f"--pvh-cov-fail-under={wanted}")
    assert result.ret == status
    assert ("% of the firmware is covered, less than 99 %" in result.stdout.str()) == (status == 1)


def test_without_it_nothing_is_said(run_pytest):
    assert "coverage of the firmware" not in run_pytest(TESTS).stdout.str()


def test_without_a_machine_it_says_so(run_pytest):
    result = run_pytest("def test_nothing():\n    pass\n", "--pvh-cov")
    result.stdout.fnmatch_lines(["no machine of the fixtures pvh, * executed anything"])
    assert result.ret == 0


def test_without_a_machine_nothing_is_covered(run_pytest):
    result = run_pytest("def test_nothing():\n    pass\n", "--pvh-cov", "--pvh-cov-fail-under=1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["pvhboot: 0.00 % of the firmware is covered, less than 1 %"])


def test_more_than_all_cannot_be_asked_for(run_pytest):
    result = run_pytest(TESTS, "--pvh-cov", "--pvh-cov-fail-under=101")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --pvh-cov-fail-under=101: give per cent, 0 to 100"])


def test_a_test_that_it_takes_for_a_file_is_not_lost(run_pytest, pytester):
    result = run_pytest(TESTS, "--pvh-cov", "test_it.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --pvh-cov would replace a file that is none of its own: test_it.py: *"])
    assert (pytester.path / "test_it.py").read_text().strip() == TESTS.strip()
    assert run_pytest(TESTS, "test_it.py", "--pvh-cov").ret == 0


def test_a_file_that_cannot_be_written_is_a_failure(run_pytest):
    result = run_pytest(TESTS, "--pvh-cov=none/it.cov")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["pvhboot: none/it.cov: cannot write: *"])


@pytest.mark.parametrize("option", ["--pvh-cov-missing", "--pvh-cov-lcov=it.info", "--pvh-cov-fail-under=0"])
def test_an_option_of_it_needs_it(run_pytest, option):
    result = run_pytest(TESTS, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {option.split('=')[0]}: needs --pvh-cov"])
