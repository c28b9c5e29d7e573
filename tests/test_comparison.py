"""The figures that docs/comparison.md takes from other pages are still theirs, and so are those that two pages show."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def text(name: str) -> str:
    return (ROOT / name).read_text()


def rows(name: str) -> dict[str, list[str]]:
    """The rows of a page's tables that begin with a machine's name, without the spread of a time."""
    found = re.findall(r"^\| `([\w-]+)`, ([\w ]+?) \| (.*) \|$", text(name), re.MULTILINE)
    return {
        f"{machine}, {firmware}": [cell.split(" (")[0] for cell in cells.split(" | ")] for machine, firmware, cells in found
    }


def bench(name: str) -> str:
    """The table of the 31 boots."""
    found = re.search(r"^tcg: milliseconds .* medians of 31\n(.*?)^rows within noise", text(name), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


COMPARED = rows("docs/comparison.md")
MEASURED = rows("docs/qboot.md")


@pytest.mark.parametrize("row", COMPARED)
def test_costs_are_those_of_qboot_md(row):
    instructions, ports, mmio, _, rom_bytes, low_memory, milliseconds, _ = MEASURED[row]
    assert COMPARED[row] == [instructions, str(int(ports) + int(mmio)), rom_bytes, low_memory, milliseconds]


@pytest.mark.parametrize("row", rows("README.md"))
def test_costs_in_the_readme_are_those_of_qboot_md(row):
    instructions, ports, mmio, _, rom_bytes, *_ = MEASURED[row]
    assert rows("README.md")[row] == [instructions, str(int(ports) + int(mmio)), rom_bytes]


def test_the_readme_shows_the_bench_of_timeline_md():
    assert bench("README.md") == bench("docs/timeline.md")


@pytest.mark.parametrize("firmware", ["pvhboot", "qboot", "SeaBIOS"])
def test_banners_are_those_of_the_bench(firmware):
    shown = re.search(rf"^\| {firmware} \| ([\d.]+) \| ([\d.]+) \|$", text("docs/comparison.md"), re.MULTILINE)
    assert shown is not None
    for figure, kernel in zip(shown.groups(), ("vmlinux", "bzImage"), strict=True):
        measured = re.search(rf"^{firmware} \+ {kernel} +(.*)$", bench("docs/timeline.md"), re.MULTILINE)
        assert measured is not None
        assert figure == measured[1].split()[-3]


def test_what_the_banners_say_is_so():
    rows = {
        name: float(rest.split()[-3])
        for name, rest in re.findall(r"^(\w+ \+ \w+) +(.*)$", bench("docs/timeline.md"), re.MULTILINE)
    }
    said = " ".join(text("docs/comparison.md").split())
    assert f"{rows['pvhboot + bzImage'] - rows['pvhboot + vmlinux']:.0f} ms, by a vmlinux instead of a bzImage" in said
    assert f"SeaBIOS costs {rows['SeaBIOS + vmlinux'] - rows['pvhboot + vmlinux']:.0f} ms more" in said


def test_what_bare_takes_is_what_the_readme_says():
    assert (counts := re.search(r"On `bare` it is (\d+) instructions", text("README.md")))
    assert f"the machine `bare`: {counts[1]} instructions" in text("docs/comparison.md")


def test_the_gains_over_qboot_are_those_of_the_table():
    ours, qboots = (MEASURED[f"q35, {firmware}"][-2:] for firmware in ("pvhboot universal", "qboot"))
    tcg, kvm = (float(theirs) - float(our) for our, theirs in zip(ours, qboots, strict=True))
    assert f"there is {tcg:.1f} ms under TCG" in " ".join(text("docs/comparison.md").split())
    assert f"where each exit and instruction counts, {kvm:.0f}." in " ".join(text("docs/comparison.md").split())
