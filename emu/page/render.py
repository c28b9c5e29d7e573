"""The page as one file: the template with the data, the styles and the scripts in it, and nothing that is fetched."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from importlib import resources
from typing import Final

from .columns import Json
from .summary import summary

_TEMPLATE: Final = "page.html"
_PLACE: Final = re.compile("@@([A-Za-z.-]+)@@")
_SCRIPT, _STYLE = ".js", ".css"
_FORBIDDEN: Final = ("</script", "</style", "<!--")  # what would end, or hide the end of, the element that a file stands in


def render(data: Json) -> bytes:
    """The HTML file, in UTF-8: the same of the same data."""
    files: dict[str, str] = {}
    template = _text(_TEMPLATE)
    for name in _PLACE.findall(template):
        if name.islower():
            files[name] = _text(name)
            assert not any(word in files[name].lower() for word in _FORBIDDEN), name
    values = {
        "TITLE": f"{escape(data['title'])} - pvhboot",
        "CSP": escape(_policy(files)),
        "SUMMARY": summary(data),
        "PAYLOAD": base64.b64encode(packed(data)).decode("ascii"),
        **files,
    }
    page = _PLACE.sub(lambda place: values[place[1]], template)
    return page.encode("utf-8", "replace")


def packed(data: Json) -> bytes:
    """The data as JSON in ASCII, compressed by gzip without a time."""
    text = json.dumps(data, separators=(",", ":"))
    return gzip.compress(text.encode("ascii"), 9, mtime=0)


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(files: Mapping[str, str]) -> str:
    """No network at all, and no script and no style but these."""
    scripts, styles = (
        " ".join(_hash(text) for name, text in files.items() if name.endswith(kind)) for kind in (_SCRIPT, _STYLE)
    )
    return f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    """As a policy names the text of an element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
