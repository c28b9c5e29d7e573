"""docs/testing.md: its tests are tests, and pass."""

import re
from pathlib import Path

from pvhboot.shim.machines import MICROVM
from pvhboot.shim.stock import default_blob

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parent.parent.parent / "docs/testing.md"


def test_all_that_is_shown_passes(run_pytest, pytester, qboot):  # noqa: ARG001 - one of the tests is of it
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (pytester.path / "bios.bin").write_bytes(default_blob(MICROVM).data)
    result = run_pytest("\n".join(blocks), "--pvh-engine=unicorn")
    result.assert_outcomes(passed=sum(block.count("\ndef test_") for block in ["\n" + block for block in blocks]))
    assert result.parseoutcomes()["passed"] >= 8


def test_each_option_is_described(run_pytest):
    text = run_pytest("", "--help").stdout.str()
    for option in set(re.findall(r"--pvh-[a-z]+", PAGE.read_text())):
        assert option in text
