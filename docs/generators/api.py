"""The reference of the Python API: signatures and docstrings, read from the sources without running them."""

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from .markdown import block
from .public import PUBLIC

_ROOT: Final = Path(__file__).parents[2]
_SIGNATURE_WIDTH: Final = 100  # of one that stands on one line
_VALUE_WIDTH: Final = 60

Definition = ast.ClassDef | ast.FunctionDef | ast.AnnAssign


def reference(_argument: str) -> str:
    """All that is public, by group and module."""
    lines: list[str] = []
    for title, modules in PUBLIC.items():
        lines += [f"## {title}", ""]
        for module, names in modules.items():
            found = definitions(module)
            lines += [f"### `{module}`", "", _prose(_module_doc(module)), ""]
            if values := [_constant(node) for name in names if isinstance(node := found[name], ast.AnnAssign)]:
                lines += [f"Values: {', '.join(values)}.", ""]
            for name in names:
                lines += _told(found[name])
    return "\n".join(lines)


def definitions(module: str) -> dict[str, Definition]:
    """What a module defines; a package, what its modules do."""
    path = _ROOT.joinpath(*module.split(".")[1:])
    files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    found: dict[str, Definition] = {}
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found[node.name] = node
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = node
    return found


def _module_doc(module: str) -> str:
    path = _ROOT.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def _told(node: Definition) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef):
        yield from (f"#### `{node.name}()`", "", *_block(_Signature.of(node)), "", _prose(ast.get_docstring(node) or ""), "")
    elif isinstance(node, ast.ClassDef):
        yield from (f"#### `{node.name}`", "", *_class(node), "")


class _Signature(NamedTuple):
    """`name(parameters) -> result`."""

    name: str
    parameters: list[str]
    result: str

    @classmethod
    def of(cls, node: ast.FunctionDef, name: str = "") -> "_Signature":
        """Of a function; of a class, with its name, by its __init__."""
        result = "" if name or node.returns is None else _type(node.returns)
        decorators = {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}
        if "contextmanager" in decorators:
            result = result.replace("Iterator", "AbstractContextManager", 1)
        if "composite" in decorators:  # of hypothesis
            result = f"SearchStrategy[{result}]"
        return cls(name or node.name, _parameters(node.args), f" -> {result}" if result not in ("", "None") else "")

    @property
    def line(self) -> str:
        """On one line."""
        return f"{self.name}({', '.join(self.parameters)}){self.result}"


def _block(signature: _Signature) -> list[str]:
    """As code, on lines of its own if it is long."""
    lines = [signature.line]
    if len(signature.line) > _SIGNATURE_WIDTH:
        lines = [f"{signature.name}(", *(f"    {each}," for each in signature.parameters), f"){signature.result}"]
    return block(lines).splitlines()


def _class(node: ast.ClassDef) -> Iterator[str]:
    init = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and not _name(each).startswith("_")]
    bases = [ast.unparse(base) for base in node.bases]
    if fields and "TypedDict" not in bases and "Protocol" not in bases:
        values = [_annotated(_name(each), each.annotation, each.value) for each in fields]
        yield from (*_block(_Signature(node.name, values, "")), "")
    elif init is not None:
        yield from (*_block(_Signature.of(init, node.name)), "")
    yield _prose(ast.get_docstring(node) or "")
    if init is not None and (text := ast.get_docstring(init)):
        yield from ("", _prose(text))
    methods = [each for each in node.body if isinstance(each, ast.FunctionDef) and not each.name.startswith("_")]
    if methods:
        yield ""
    for method in methods:
        decorators = {ast.unparse(each) for each in method.decorator_list}
        if any(each.endswith(".setter") for each in decorators):
            continue
        shown = _Signature.of(method).line
        if decorators & {"property", "cached_property"}:
            shown = method.name if method.returns is None else f"{method.name}: {_type(method.returns)}"
        yield f"- `{shown}`: {_prose(ast.get_docstring(method) or '', indent=2)}".rstrip(": ")


def _parameters(arguments: ast.arguments) -> list[str]:
    values = []
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for argument, default in zip(positional, defaults, strict=True):
        if argument.arg not in ("self", "cls", "draw") and not argument.arg.startswith("_"):
            values.append(_annotated(argument.arg, argument.annotation, default))
    if arguments.vararg is not None:
        values.append("*" + _annotated(arguments.vararg.arg, arguments.vararg.annotation, None))
    elif arguments.kwonlyargs:
        values.append("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        values.append(_annotated(argument.arg, argument.annotation, default))
    if arguments.kwarg is not None:
        values.append("**" + _annotated(arguments.kwarg.arg, arguments.kwarg.annotation, None))
    return values


def _annotated(name: str, annotation: ast.expr | None, default: ast.expr | None) -> str:
    text = name if annotation is None else f"{name}: {_type(annotation)}"
    return text if default is None else f"{text} = {ast.unparse(default)}"


def _type(node: ast.expr) -> str:
    """An annotation, those in quotes without them."""

    class Unquoted(ast.NodeTransformer):
        def visit_Constant(self, constant: ast.Constant) -> ast.expr:
            return ast.parse(constant.value, mode="eval").body if isinstance(constant.value, str) else constant

    return ast.unparse(Unquoted().visit(ast.parse(ast.unparse(node), mode="eval").body))


def _name(node: ast.AnnAssign) -> str:
    assert isinstance(node.target, ast.Name)
    return node.target.id


def _constant(node: ast.AnnAssign) -> str:
    text = "" if node.value is None else ast.unparse(node.value)
    is_plain = isinstance(node.value, ast.Constant | ast.BinOp) and len(text) <= _VALUE_WIDTH
    return f"`{_name(node)} = {text}`" if is_plain else f"`{_name(node)}`"


def _prose(text: str, indent: int = 0) -> str:
    """A docstring: what is indented in it is code, the rest Markdown already; pages are links."""
    parts = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("    "):
            parts.append(block(inspect.cleandoc(paragraph).splitlines()))
        else:
            joined = " ".join(paragraph.split())
            joined = re.sub(r"(?<!`)\bdocs/([\w-]+)\.md\b", r"[\1.md](../\1.md)", joined)
            parts.append(re.sub(r"([*<])(?=[^`]*(?:`[^`]*`[^`]*)*$)", r"\\\1", joined))
    return re.sub(r"\n(?!\n)", "\n" + " " * indent, "\n\n".join(parts))


BLOCKS: Final[Mapping[str, Callable[[str], str]]] = {"api": reference}
