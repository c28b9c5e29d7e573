"""--manifest: what `pvhboot build --manifest` has written makes a ROM from a file as well known as when it was built."""

import json

import pytest
from pvhboot.emu.cli import main

STAGE = "# Clobbers: eax\n    mov eax, dword ptr [0x50000]\n    ret\n"


@pytest.fixture
def built(tmp_path):
    """A ROM with a stage that reads what nobody has written, and its manifest."""
    (tmp_path / "peek.s").write_text(STAGE)
    rom, manifest = tmp_path / "peek.bin", tmp_path / "peek.json"
    stage = f"before-handoff={tmp_path / 'peek.s'}"
    assert main(["build", "--stage", stage, "-o", str(rom), "--manifest", str(manifest)]) == 0
    return rom, manifest


def fails(capsys, *arguments):
    """The one line that a boot fails with."""
    capsys.readouterr()
    assert main(["boot", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def sanitized(capsys, *arguments):
    """The one finding of a boot."""
    capsys.readouterr()
    assert main(["boot", "--sanitize", "--json", *map(str, arguments)]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["sanitizer"]
    return finding


def test_it_gives_labels_and_lines(capsys, built):
    rom, manifest = built
    assert sanitized(capsys, "--firmware", rom)["place"].startswith("ROM+0x")
    finding = sanitized(capsys, "--firmware", rom, "--manifest", manifest)
    assert (finding["place"], finding["text"]) == ("stage_before_handoff (peek.s:2)", "mov eax, dword ptr [0x50000]")


def test_it_is_of_that_rom(capsys, built, tmp_path):
    rom, manifest = built
    other = tmp_path / "other.bin"
    assert main(["build", "-o", str(other)]) == 0
    assert f"{manifest}: the manifest of another firmware" in fails(capsys, "--firmware", other, "--manifest", manifest)
    assert "name that, too" in fails(capsys, "--manifest", manifest)
    assert "cannot read the manifest" in fails(capsys, "--firmware", rom, "--manifest", tmp_path / "none")


WRONG = {
    "no-json": lambda _: "peek",
    "no-object": lambda _: "[]",
    "deep": lambda _: "[" * 100_000,
    "empty": lambda _: "{}",
    "no-listing": lambda manifest: json.dumps({key: manifest[key] for key in manifest if key != "listing"}),
    "listing-of-numbers": lambda manifest: json.dumps({**manifest, "listing": [1]}),
    "lines-of-numbers": lambda manifest: json.dumps({**manifest, "listing": [["0xfffffff0", "e9", 5, 9, 7]]}),
    "lines-of-other-bytes": lambda manifest: json.dumps({**manifest, "listing": [["0xfffffff0", "90", "reset.s", 9, "nop"]]}),
    **{
        f"a-file-at-{where}": lambda manifest, where=where: json.dumps(
            {**manifest, "listing": [[row[0], row[1], where, *row[3:]] for row in manifest["listing"]]}
        )
        for where in ("/etc/passwd", "../reset.s", "..", "a\nb")
    },
    "lines-beyond-the-rom": lambda manifest: json.dumps({**manifest, "listing": [["0x1fffffff0", "e9", "reset.s", 9, "nop"]]}),
    "labels-beyond-the-rom": lambda manifest: json.dumps({**manifest, "symbols": {**manifest["symbols"], "x": "0x1fffffff0"}}),
    "no-reset-vector": lambda manifest: json.dumps({**manifest, "symbols": {}}),
    "nothing-at-the-reset-vector": lambda manifest: json.dumps({**manifest, "listing": []}),
    "no-memory": lambda manifest: json.dumps({key: manifest[key] for key in manifest if key != "low_memory"}),
    "memory-without-end": lambda manifest: json.dumps({**manifest, "low_memory": [{"name": "gdt", "start": "0x1000"}]}),
    "memory-of-numbers": lambda manifest: json.dumps({**manifest, "low_memory": [{"name": "gdt", "start": 1, "end": 2}]}),
    "stage-without-memory": lambda manifest: json.dumps({**manifest, "stages": [{"file": "peek.s"}]}),
    "rom-no-object": lambda manifest: json.dumps({**manifest, "rom": "peek"}),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_no_manifest(capsys, built, wrong):
    rom, manifest = built
    manifest.write_text(wrong(json.loads(manifest.read_text())))
    assert f"{manifest}: no manifest of a firmware" in fails(capsys, "--firmware", rom, "--manifest", manifest)


def test_a_few_lines_may_be_patched(capsys, built):
    """Here `mov eax, [0x50000]` has become `mov eax, [0x50004]`: label and line stay."""
    rom, manifest = built
    load = bytes.fromhex("a100000500")
    assert rom.read_bytes().count(load) == 1
    rom.write_bytes(rom.read_bytes().replace(load, bytes.fromhex("a104000500")))
    finding = sanitized(capsys, "--firmware", rom, "--manifest", manifest)
    assert (finding["place"], finding["text"]) == (
        "stage_before_handoff (peek.s:2)",
        "mov eax, dword ptr [0x50000] (patched since)",
    )
    main(["boot", "--firmware", str(rom), "--manifest", str(manifest)])
    assert capsys.readouterr().out.splitlines()[0].endswith(", patched at peek.s:2, engine unicorn")


OTHERS = {"shifted": lambda rom: rom[1:] + rom[:1], "another-size": lambda rom: rom[0x8000:]}


@pytest.mark.parametrize("changed", OTHERS.values(), ids=OTHERS)
def test_a_rom_with_many_other_lines_is_another_one(capsys, built, changed):
    rom, manifest = built
    rom.write_bytes(changed(rom.read_bytes()))
    assert f"{manifest}: the manifest of another firmware" in fails(capsys, "--firmware", rom, "--manifest", manifest)
