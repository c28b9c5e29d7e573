"""What the README shows is what one gets."""

import re
import shlex
from pathlib import Path

import pytest
from host import kvm_problem
from pvhboot.emu.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.fixture
def with_vmlinux(guest_file, tmp_path, monkeypatch):
    (tmp_path / "vmlinux").symlink_to(guest_file("vmlinux-6.1"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("with_vmlinux")
def test_the_first_output_is_true(capsys):
    if problem := kvm_problem():
        pytest.skip(problem)
    shown = re.search(r"^```\n\$ pvhboot (.*?)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert main(shlex.split(shown.group(1))) == 0
    assert capsys.readouterr().out == shown.group(2)


@pytest.mark.usefixtures("with_vmlinux")
def test_the_python_example_runs():
    example = re.search(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert example is not None
    exec(compile(example.group(1), "README.md", "exec"), {})


def test_the_figures_are_true(capsys):
    assert main(["boot"]) == 0
    count = re.search(r"after (\d+) instructions, 0 device accesses", capsys.readouterr().out)
    assert count is not None
    assert f"{count.group(1)} instructions" in README
