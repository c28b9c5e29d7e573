"""The sidebar: what index.md lists. That page is a plain list of links under headings, which a forge shows as it is."""

import re
from typing import Any

from sphinx.application import Sphinx

_HEADING = re.compile(r"## (.+)")
_PAGE = re.compile(r"[-*] \[[^]]+\]\(([^):#]+)\.md\)")


def _add_toctrees(app: Sphinx, docname: str, source: list[str]) -> None:
    """One for each heading, out of sight, as the list itself is there."""
    if docname != app.config.root_doc:
        return
    lines: list[str] = []
    for line in source[0].splitlines():
        if heading := _HEADING.fullmatch(line):
            lines += ["```", ""] if lines else []
            lines += ["```{toctree}", ":hidden:", f":caption: {heading[1]}", ""]
        elif (page := _PAGE.match(line)) and not page[1].startswith("../"):
            lines.append(page[1])
    source[0] += "\n" + "\n".join([*lines, "```", ""])


def setup(app: Sphinx) -> dict[str, Any]:
    """As Sphinx wants it of an extension."""
    app.connect("source-read", _add_toctrees)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
