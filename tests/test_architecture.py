"""The house stays whole: imports go one way, every package is shipped, every module is used, slow imports are lazy."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("shim", "loader", "emu")  # each may import those before it


def modules() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imports_of(path: Path) -> set[str]:
    """The absolute names of what a module of ours imports."""
    package = ["pvhboot", *path.relative_to(ROOT).parent.parts]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    later = ROOMS[ROOMS.index(room) + 1 :]
    wrong = [name for name in imports_of(path) if name.startswith(tuple(f"pvhboot.{other}" for other in later))]
    assert not wrong, f"{room} must not import {wrong}"


def test_the_package_list_is_complete():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"pvhboot." + ".".join(path.parent.relative_to(ROOT).parts) for path in modules()}
    assert sorted(listed) == sorted(found)


def test_every_package_has_an_init():
    assert not [path.parent for path in modules() if not (path.parent / "__init__.py").is_file()]


def test_every_module_is_imported_by_another_or_is_where_somebody_begins():
    imported = set().union(*(imports_of(path) for path in modules()))
    commands = {f"pvhboot.emu.commands.{path.stem}" for path in (ROOT / "emu/commands").glob("*.py")}  # by name, from cli.py
    plugins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    entries = {"pvhboot.emu.cli", "pvhboot.emu.notebook", *plugins.values()} | commands
    unused = [
        str(path.relative_to(ROOT))
        for path in modules()
        if path.name != "__init__.py"
        and "pvhboot." + ".".join(path.relative_to(ROOT).with_suffix("").parts) not in imported | entries
    ]
    assert not unused


@pytest.mark.parametrize(
    ("package", "path"),
    [
        ("keystone", "shim/encode.py"),
        ("unicorn", "emu/engines/unicorn_cpu.py"),
        ("elftools", "loader/elf.py"),
        *((package, "loader/codecs.py") for package in ("lz4", "zstandard", "lzma", "bz2", "zlib")),
    ],
)
def test_a_library_is_imported_where_it_belongs(package, path):
    users = {
        str(module.relative_to(ROOT))
        for module in modules()
        if any(name.split(".")[0] == package for name in imports_of(module))
    }
    more = {
        "loader/codecs.py": {"loader/packing.py"},
        "emu/engines/unicorn_cpu.py": {
            f"emu/engines/unicorn_{part}.py" for part in ("context", "memory", "pace", "registers", "system")
        },
    }
    assert path in users <= {path} | more.get(path, set())


def test_slow_libraries_are_lazy():
    code = "import sys, pvhboot.emu, pvhboot.emu.cli, pvhboot.emu.session, pvhboot.emu.commands.boot; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"keystone", "unicorn", "capstone", "elftools", "lz4", "zstandard", "hypothesis"} & set(out)


def test_a_boot_that_goes_well_imports_nothing_that_it_does_not_use():
    code = (
        "import contextlib, io, sys\nfrom pvhboot.emu.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): assert main(['boot']) == 0\nprint(*sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    unused = ("diagnosis", "causes", "recent", "sanitizer", "coverage", "trace", "transcript", "replay", "gdb", "vary", "kit")
    assert not {f"pvhboot.emu.{name}" for name in unused} & set(out)
    assert not {"capstone", "keystone", "pvhboot.shim.dwarf"} & set(out)


def test_the_loader_imports_what_decompresses_when_it_is_met():
    """All of the loader but its strategies. (In emu, tempfile brings bz2 and lzma along.)"""
    names = [
        "pvhboot." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in modules()
        if path.relative_to(ROOT).parts[0] == "loader" and "strategies" not in path.parts
    ]
    code = f"import sys, importlib; [importlib.import_module(name) for name in {names!r}]; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "pvhboot.loader.codecs" in out
    assert not {"elftools", "lz4", "zstandard", "lzma", "bz2", "zlib", "hypothesis"} & set(out)


def test_a_prebuilt_boot_needs_no_assembler():
    code = (
        "import sys; sys.modules['keystone'] = None; from pvhboot.emu.cli import main; status = main(['boot', '--json']);"
        "print('capstone' in sys.modules, file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "False\n"
