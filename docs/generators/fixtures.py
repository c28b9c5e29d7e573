"""The reference of what pvhboot gives to pytest, from the plugins themselves."""

import ast
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from pvhboot.emu import pytest_coverage, pytest_plugin

from .api import definitions
from .markdown import cell, code, table

_PLUGINS: Final = (pytest_plugin, pytest_coverage)


class _Asked:
    """Stands in for pytest's parser: notes which options a plugin adds."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    def getgroup(self, *_names: str) -> "_Asked":
        return self

    def addoption(self, option: str, **how: Any) -> None:
        metavar = how.get("metavar") or "|".join(map(str, how.get("choices") or ()))
        takes = "" if how.get("action") == "store_const" else f" [{metavar}]" if how.get("nargs") == "?" else f" {metavar}"
        self.rows.append((code(option + takes), cell(how["help"] % {"default": how.get("default")})))


def fixtures(_argument: str) -> str:
    """Each fixture with its scope and its docstring."""
    rows = []
    for plugin in _PLUGINS:
        for node in ast.parse(inspect.getsource(plugin)).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            for decorator in map(ast.unparse, node.decorator_list):
                if decorator.startswith("pytest.fixture"):
                    scope = decorator.partition("scope='")[2].partition("'")[0] or "function"
                    rows.append((code(node.name), scope, _linked(ast.get_docstring(node) or "")))
    return table(("fixture", "scope", "what it is"), rows)


def options(_argument: str) -> str:
    """Each option of the command line of pytest."""
    asked = _Asked()
    for plugin in _PLUGINS:
        plugin.pytest_addoption(asked)
    return table(("option", "meaning"), asked.rows)


def keywords(_argument: str) -> str:
    """What `pvh` takes, with types."""
    node = definitions("pvhboot.emu.kit.setup")["Options"]
    assert isinstance(node, ast.ClassDef)
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    return table(("keyword", "type"), ((code(ast.unparse(each.target)), code(ast.unparse(each.annotation))) for each in fields))


def _linked(text: str) -> str:
    return text.replace("docs/testing.md", "[testing.md](../testing.md)")


BLOCKS: Final[Mapping[str, Callable[[str], str]]] = {
    "fixtures": fixtures,
    "pytest-options": options,
    "pvh-keywords": keywords,
}
