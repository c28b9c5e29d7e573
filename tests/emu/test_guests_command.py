"""`pvhboot guests`: files and manifest; and what docs/guests.md tells."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from guest_runs import CHECKS
from pvhboot.emu.cli import main
from pvhboot.shim.guest_layout import (
    GUEST_FORMAT,
)
from pvhboot.shim.guest_library import LIBRARY


def test_all_are_written_with_a_manifest(tmp_path, capsys):
    directory = tmp_path / "made" / "on the way"
    assert main(["guests", "-o", str(directory)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["name", "memory", "expected", "what", "is", "special", "about", "it"]
    assert [line.split()[0] for line in out[1:-1]] == [one.name for one in LIBRARY]
    assert out[-1] == f"{len(LIBRARY)} guests and guests.json written to {directory}"
    manifest = json.loads((directory / "guests.json").read_text())
    assert (manifest["format"], manifest["serial_port"], manifest["debug_exit_port"]) == (GUEST_FORMAT, 0x3F8, 0x501)
    assert set(manifest["exit_values"]) == {"0", "1-124", "125", "126", "127"}
    assert sorted(path.name for path in directory.iterdir()) == sorted(
        ["guests.json", *(entry["file"] for entry in manifest["guests"])]
    )
    for entry, one in zip(manifest["guests"], LIBRARY, strict=True):
        data = (directory / entry["file"]).read_bytes()
        assert entry == {
            "name": one.name,
            "file": f"guest-{one.name}",
            "shows": one.shows,
            "class": 32 * data[4],
            "memory": one.memory,
            "relocatable": None if one.recipe.relocation is None else one.recipe.relocation._asdict(),
            "expected": "refused" if one.reason else "boots",
            "reason": one.reason or None,
            "sha256": hashlib.sha256(data).hexdigest(),
        }


def test_some_are_written_and_named_once(tmp_path, capsys):
    assert main(["guests", "reloc-12", "elf32", "reloc-12", "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"2 guests and guests.json written to {tmp_path}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["guest-elf32", "guest-reloc-12", "guests.json"]
    assert [entry["name"] for entry in json.loads((tmp_path / "guests.json").read_text())["guests"]] == ["reloc-12", "elf32"]


def test_the_list_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["guests", "--list", "freebsd"]) == 0
    assert re.search(r"^freebsd +16 MiB +boots +a stand-in for FreeBSD/amd64", capsys.readouterr().out, re.MULTILINE)
    assert main(["guests", "--list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["guests"]) == len(LIBRARY)
    assert list(tmp_path.iterdir()) == []


def test_json_is_the_manifest(tmp_path, capsys):
    assert main(["guests", "elf64", "-o", str(tmp_path), "--json"]) == 0
    assert capsys.readouterr().out == (tmp_path / "guests.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "pvhboot: name a directory for the guests with -o DIR, or look at their list with --list"),
        (["nobody", "--list"], "pvhboot: no conformance guest named 'nobody': `pvhboot guests --list` names them"),
        (["-o", "file"], "pvhboot: file: cannot be made a directory: File exists"),
        (["-o", "file/below"], "pvhboot: file/below: cannot be made a directory: Not a directory"),
        (["-o", ""], "pvhboot: an output without a name: cannot be made a directory: No such file or directory"),
        (["-o", "a\0b"], r"pvhboot: a\x00b: cannot be made a directory: embedded null byte"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main(["guests", *arguments]) == 2
    assert capsys.readouterr().err == says + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# docs/guests.md.

DOCS = (Path(__file__).parents[2] / "docs" / "guests.md").read_text()


def test_the_docs_tell_of_every_check_and_every_guest():
    (table,) = re.findall(r"^\| check \|.*\n\|.*\n((?:\|.*\n)+)", DOCS, re.MULTILINE)
    told = [name for names in re.findall(r"^\| ([\w, ]+) \|", table, re.MULTILINE) for name in names.split(", ")]
    assert sorted(told) == sorted(CHECKS)
    whole = set(re.findall(r"`([a-z][\w-]+)`", DOCS))
    ends = set(re.findall(r"`(-[\w-]+)`", DOCS))
    assert [one.name for one in LIBRARY if one.name not in whole and not any(one.name.endswith(end) for end in ends)] == []
