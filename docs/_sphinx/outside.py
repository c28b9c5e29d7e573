"""Files that pages link to and that are no pages: sources, examples, directories, README.md. On a forge such a link shows the
file; here it gets a page that does, under `source/`."""

import html
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from markdown_it import MarkdownIt
from slugs import slug
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder

_LANGUAGES = {".py": "python", ".s": "asm", ".sh": "bash", ".json": "json", ".toml": "toml"}
_PREFIX = "source/"
_PAGE_END = ".md"


def _root(app: Sphinx) -> Path:
    return Path(app.srcdir).parent


def _linked(app: Sphinx, docname: str, node: nodes.Element) -> str | None:
    """What a link leads to that is no page, from the root of the project; None if it is a page, or not there."""
    target = node["reftarget"]
    if node["refdomain"] == "doc":  # as MyST calls any Markdown
        target = "" if target in app.env.found_docs else f"{target}{_PAGE_END}"
    elif node["refdomain"]:
        return None
    path = Path(os.path.normpath(Path(app.env.doc2path(docname)).parent / target.partition("#")[0]))
    if not target or not path.exists() or not path.is_relative_to(_root(app)):
        return None
    return path.relative_to(_root(app)).as_posix()


def _lead_to_pages(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    found: set[str] = set()
    for node in [*doctree.findall(addnodes.download_reference), *doctree.findall(addnodes.pending_xref)]:
        if (path := _linked(app, docname, node)) is None:
            continue
        found.add(path)
        uri = app.builder.get_relative_uri(docname, _PREFIX + path)
        node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))
    _targets(app)[docname] = found


def _targets(app: Sphinx) -> dict[str, set[str]]:
    """By page, what it leads to; kept between builds."""
    targets: dict[str, set[str]] = vars(app.env).setdefault("outside_targets", {})
    return targets


def _pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    waiting, done = sorted(set().union(*_targets(app).values())), set()
    while waiting:
        path = waiting.pop()
        if path in done:
            continue
        done.add(path)
        file = _root(app) / path
        if file.is_dir():
            names = sorted(each.name for each in file.iterdir() if each.name != "__pycache__")
            waiting += [f"{path}/{name}" for name in names]
            body = _listed(app, path, names)
        elif file.suffix == _PAGE_END:
            body = _rendered(app, path, waiting)
        else:
            text = file.read_text(encoding="utf-8")
            shown = _highlighted(app, text, _LANGUAGES.get(file.suffix, "text"), linenos="inline")
            body = f"<h1>{html.escape(path)}</h1>{shown}"
        yield _PREFIX + path, {"title": path, "body": body, "parents": []}, "page.html"


def _highlighted(app: Sphinx, text: str, language: str, **options: Any) -> str:
    assert isinstance(app.builder, StandaloneHTMLBuilder)  # no other asks for pages
    return app.builder.highlighter.highlight_block(text, language, **options)


def _uri(app: Sphinx, path: str, target: str) -> str:
    return app.builder.get_relative_uri(_PREFIX + path, target)


def _listed(app: Sphinx, path: str, names: list[str]) -> str:
    items = [f'<li><a href="{_uri(app, path, _PREFIX + f"{path}/{name}")}">{html.escape(name)}</a></li>' for name in names]
    return f"<h1>{html.escape(path)}</h1><ul>{''.join(items)}</ul>"


def _rendered(app: Sphinx, path: str, waiting: list[str]) -> str:
    """A Markdown file outside of the pages. What it links to, if it is no page, waits to be shown, too."""
    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse((_root(app) / path).read_text(encoding="utf-8"))
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", slug(tokens[at + 1].content))
        elif token.type == "table_open":
            token.attrSet("class", "docutils")
        elif token.type == "fence":
            token.type, language = "html_block", token.info.strip() or "none"
            token.content = _highlighted(app, token.content, language)
        for each in token.children or ():
            if each.type == "code_inline":
                each.attrSet("class", "docutils literal notranslate")
            elif each.type == "image":
                _bring(app, path, str(each.attrs["src"]))
            elif each.type == "link_open" and (target := _shown_at(app, path, str(each.attrs["href"]), waiting)):
                each.attrSet("href", target)
    return str(markdown.renderer.render(tokens, markdown.options, {}))


def _bring(app: Sphinx, path: str, picture: str) -> None:
    """A file's picture goes along, to where it lies beside that file."""
    if ":" not in picture:
        target = os.path.normpath(Path(path).parent / picture)
        place = Path(app.outdir, _PREFIX + target)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_root(app) / target, place)


def _shown_at(app: Sphinx, path: str, link: str, waiting: list[str]) -> str:
    """Where what a file links to stands on the site; empty: where the link says."""
    name, _, anchor = link.partition("#")
    if ":" in link or not name:
        return ""
    target = os.path.normpath(Path(path).parent / name)
    docname = app.env.path2doc(_root(app) / target)
    if docname is None:
        docname = _PREFIX + target
        waiting.append(target)
    return _uri(app, path, docname) + (f"#{anchor}" if anchor else "")


def setup(app: Sphinx) -> dict[str, Any]:
    """As Sphinx wants it of an extension."""
    app.connect("doctree-read", _lead_to_pages, priority=100)  # before Sphinx looks for what to download
    app.connect("html-collect-pages", _pages)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
