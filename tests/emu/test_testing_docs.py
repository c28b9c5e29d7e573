"""docs/testing.md: the options that it names are there."""

import re
from pathlib import Path

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parent.parent.parent / "docs/testing.md"


def test_each_option_is_described(run_pytest):
    text = run_pytest("", "--help").stdout.str()
    for option in set(re.findall(r"--pvh-[a-z]+", PAGE.read_text())):
        assert option in text
