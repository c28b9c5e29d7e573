"""The reference in docs/ says what there is: what is generated is as the generators write it, and every key of the JSON that
pvhboot writes is explained, and none besides."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest
from command_line import command
from pvhboot.emu.cli import main
from pvhboot.emu.commands import compare
from pvhboot.emu.comparison import Difference
from pvhboot.shim.errors import UnavailableError

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.fixture
def docs_path(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))


@pytest.mark.usefixtures("docs_path")
def test_what_is_generated_is_not_stale():
    from generate import stale_pages

    stale = [str(page.relative_to(ROOT)) for page in stale_pages()]
    assert not stale, "run: python docs/generate.py"


@pytest.mark.usefixtures("docs_path")
def test_generating_again_changes_nothing():
    from generate import GENERATORS
    from generators.markdown import filled

    text = "a\n\n<!-- generated: posts -->\nold\n<!-- end of generated -->\nb\n"
    once = filled(text, GENERATORS)
    assert "old" not in once
    assert once.startswith("a\n\n<!-- generated: posts -->\n\n|")
    assert filled(once, GENERATORS) == once
    drawing = filled("<!-- generated: memory-map bare -->\n<!-- end of generated -->\n", GENERATORS).splitlines()[2:-2]
    assert all(line.startswith("    ") for line in drawing), "a block of code by its indent"
    with pytest.raises(KeyError, match="nobody"):
        filled(text.replace("posts", "nobody"), GENERATORS)


@pytest.mark.usefixtures("docs_path")
def test_all_that_is_public_is_there_and_says_what_it_is():
    from generators.api import definitions
    from generators.public import PUBLIC

    silent = []
    for modules in PUBLIC.values():
        for module, names in modules.items():
            found = definitions(module)
            for name in names:
                node = found[name]
                if not isinstance(node, ast.AnnAssign) and not ast.get_docstring(node):
                    silent.append(f"{module}.{name}")
    assert not silent


@pytest.mark.usefixtures("docs_path")
def test_what_pages_import_is_public():
    """As far as it is code to be copied: no page leads to what may go away."""
    from generators.public import PUBLIC

    public = {module: names for modules in PUBLIC.values() for module, names in modules.items()}
    others = []
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pvhboot."):
                    names = public.get(str(node.module), ())
                    others += [f"{page.name}: {node.module}.{each.name}" for each in node.names if each.name not in names]
    assert not others


def documented(page, heading=""):
    """The keys in the tables of a page, or of what stands under one of its headings."""
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    if heading:
        text = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def keys(data, before=""):
    """All keys within plain data: `a.b`, and `a[].b` of the members of a list."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield f"{before}{name}"
            yield from keys(value, f"{before}{name}.")
    elif isinstance(data, list):
        for value in data:
            yield from keys(value, f"{before.removesuffix('.')}[].")


def require_alike(told, real):
    """Each key is told of, and each that is told of is real. `*` stands for a name that is data."""
    patterns = {key: re.compile(re.escape(key).replace(r"\*", r"[\w .-]+")) for key in told}
    assert sorted(key for key in real if not any(pattern.fullmatch(key) for pattern in patterns.values())) == []
    assert [key for key, pattern in patterns.items() if not any(pattern.fullmatch(one) for one in real)] == []
    assert len(set(told)) == len(told)


BAD_STAGE = "# Clobbers: eax, memory 0x100000-0x101000\n    mov dword ptr [0x100008], 5\n    ret\n"


@pytest.fixture
def bad_rom(tmp_path, capsys):
    """A firmware with a stage that clobbers the kernel; its manifest beside it."""
    stage, rom, manifest = tmp_path / "bad.s", tmp_path / "bad.bin", tmp_path / "bad.json"
    stage.write_text(BAD_STAGE)
    command(capsys, "build", "--stage", f"before-handoff={stage}", "-o", rom, "--manifest", manifest)
    return rom, manifest


def test_keys_of_the_manifest(tmp_path, capsys, bad_rom):
    guests = tmp_path / "guests"
    command(capsys, "guests", "elf64", "-o", guests)
    baked = tmp_path / "baked.json"
    command(capsys, "build", "--kernel", guests / "guest-elf64", "-o", tmp_path / "baked.bin", "--manifest", baked)
    firmwares = [path for path in (ROOT / "shim" / "prebuilt").glob("*.json") if path.stem != "guest"]
    assert len(firmwares) == 6
    real = set()
    for path in [*firmwares, bad_rom[1], baked]:
        real |= set(keys(json.loads(path.read_text(encoding="utf-8"))))
    plan = {f"boots.{key}" for key in documented("outcome.md", "`plan --json`")}
    assert {key for key in real if key.startswith("boots.")} <= plan
    require_alike(documented("manifest.md"), {key for key in real if not key.startswith("boots.")})


def outcome(capsys, *arguments):
    main(["boot", *map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


def test_keys_of_the_outcome(tmp_path, capsys, bad_rom):
    rom, manifest = bad_rom
    initrd, transcript = tmp_path / "initrd", tmp_path / "io.jsonl"
    initrd.write_bytes(bytes(5000))
    real = set(keys(outcome(capsys, "--machine", "q35", "--initrd", initrd, "--append", "x", "--stats")))
    real |= set(keys(outcome(capsys, "--firmware", rom, "--manifest", manifest, "--sanitize")))
    outcome(capsys, "--machine", "microvm", "--record-io", transcript)
    real |= set(keys(outcome(capsys, "--machine", "microvm", "--replay-io", transcript)))
    transcript.write_text(transcript.read_text().replace('{"in": "0x514"', '{"in": "0x515"', 1))  # the first is without answer
    real |= set(keys(outcome(capsys, "--machine", "microvm", "--replay-io", transcript, "--replay-order", "tolerant")))
    require_alike(documented("outcome.md", "`boot --json`"), {key for key in real if not key.startswith("stats.")})


def test_keys_of_a_plan(tmp_path, capsys):
    initrd = tmp_path / "initrd"
    initrd.write_bytes(bytes(5000))
    command(capsys, "guests", "elf64", "-o", tmp_path)
    text = command(capsys, "plan", tmp_path / "guest-elf64", "--initrd", initrd, "--json")
    require_alike(documented("outcome.md", "`plan --json`"), set(keys(json.loads(text))))


def test_keys_of_a_comparison(capsys, monkeypatch):
    """With an engine that this host lacks, and one that differs."""
    real_boot, real_compare = compare.boot, compare.compare

    def boot(plan, blob, engine, *rest):
        if engine.name != "unicorn":
            raise UnavailableError("not here")
        return real_boot(plan, blob, engine, *rest)

    def with_difference(outcomes):
        found = real_compare(outcomes)
        return found._replace(differences=(Difference("registers", {"unicorn": "1", "kvm": "2"}),))

    monkeypatch.setattr(compare, "boot", boot)
    monkeypatch.setattr(compare, "compare", with_difference)
    monkeypatch.setattr(compare, "_host_reserved", lambda _arguments: lambda _spec, _memory: ())
    assert main(["compare", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert set(data["not_run"]) >= {"qemu"}
    data["not_run"] = {}  # its keys are engines
    require_alike(documented("outcome.md", "`compare --json`"), set(keys(data)))


def test_pages_that_tell_of_files_leave_none_out():
    assembly = (DOCS / "assembly.md").read_text(encoding="utf-8")
    missing = [path.name for path in (ROOT / "shim" / "asm").glob("*.s") if f"(../shim/asm/{path.name})" not in assembly]
    model = (DOCS / "model.md").read_text(encoding="utf-8")
    devices = (ROOT / "emu" / "devices").glob("[!_]*.py")
    missing += [path.name for path in devices if f"(../emu/devices/{path.name})" not in model]
    assert sorted(missing) == []


def test_the_generator_can_be_asked_for_what_is_stale(tmp_path, capsys, monkeypatch, docs_path):  # noqa: ARG001
    import generate

    page = tmp_path / "page.md"
    page.write_text("<!-- generated: posts -->\n<!-- end of generated -->\n")
    monkeypatch.setattr(generate, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 1
    assert capsys.readouterr().out == "stale: page.md\n"
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generate.main() == 0
    assert "protected mode" in page.read_text()
    assert generate.main() == 0
    assert capsys.readouterr().out == "written: page.md\n"
