"""Every link in the documentation leads somewhere: on a forge, which shows the Markdown, and on the site that Sphinx makes of
it. The site is made without a warning, and loads nothing from elsewhere."""

import re
import subprocess
import sys
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.append(str(DOCS / "_sphinx"))

from slugs import slug  # noqa: E402

PAGES = sorted(page for page in DOCS.rglob("*.md") if "examples" not in page.parts)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def prose(page):
    """The text of a page without blocks of code and comments."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^ *```.*?^ *```$|<!--.*?-->", "", text, flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page):
    """What a # may stand in front of: the headings, as a forge names them."""
    seen = Counter()
    found = set()
    for heading in re.findall(r"^#{1,6} (.+)", prose(page), re.MULTILINE):
        name = slug(heading)
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


@cache
def links(page):
    """What a page links to, code within lines aside."""
    return _LINK.findall(re.sub(r"(?<!\[)`[^`]+`(?!\])", "", prose(page)))


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_on_a_forge(page):
    broken = []
    for link in links(page):
        if urlsplit(link).scheme:
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_the_index_lists_every_page():
    listed = {(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "index.md")}
    assert [str(page.relative_to(DOCS)) for page in PAGES if page.name != "index.md" and page not in listed] == []


def test_each_page_has_one_title():
    assert [page.name for page in PAGES if len(re.findall(r"^# ", prose(page), re.MULTILINE)) != 1] == []


class Html(HTMLParser):
    """What an HTML page has: anchors, links, and what a browser loads with it."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if "id" in named:
            self.ids.add(named["id"])
        if tag == "a" and "href" in named:
            self.links.append(named["href"])
        if tag == "link" and named.get("rel") != "canonical" and "href" in named:
            self.loaded.append(named["href"])
        if "src" in named:
            self.loaded.append(named["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, made as anybody makes it."""
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package, reason=f"no {package}: pip install 'pvhboot[docs]' brings it")
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", directory / "doctrees"]
    made = subprocess.run([*command, DOCS, directory / "html"], capture_output=True, text=True, timeout=280)
    assert (made.returncode, made.stderr) == (0, "")
    return directory / "html"


@pytest.fixture(scope="module")
def html(site):
    """Its pages, by their paths."""
    return {path: Html(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_each_page_is_on_the_site(site):
    assert [page.name for page in PAGES if not (site / page.relative_to(DOCS)).with_suffix(".html").is_file()] == []


def test_links_on_the_site(html):
    broken = []
    for path, page in html.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = html.get(target)
            lost = parts.fragment and known is not None and unquote(parts.fragment) not in known.ids
            if not target.exists() or lost:
                broken.append(f"{path.name}: {link}")
    assert not broken


def test_files_that_are_no_pages_are_shown(site):
    shown = site / "source"
    source = (shown / "shim/asm/reset.s.html").read_text(encoding="utf-8")
    assert "jmp real_mode" in re.sub(r"<[^>]+>", "", source)
    assert "../firmware.html" in Html((shown / "README.md.html").read_text(encoding="utf-8")).links


def test_nothing_is_loaded_from_elsewhere(site, html):
    foreign = [f"{path.name}: {link}" for path, page in html.items() for link in page.loaded if urlsplit(link).netloc]
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        foreign += [f"{sheet.name}: {link}" for link in re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)", text)]
    assert not foreign
    assert html
