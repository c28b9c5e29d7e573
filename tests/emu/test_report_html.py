"""The file of a page: whole, the same each time, with nothing fetched, and nothing in it that a guest or a file's name could
break out by."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from pvhboot.emu.page.render import render
from pvhboot.shim.machines import BARE, MICROVM
from reports import payload, report
from traced import flat_guest

HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>'\"&\u2028@@PAYLOAD@@"
_VOID = {"meta", "link", "input", "br", "hr", "img", "wbr"}


class Page(HTMLParser):
    """The elements of a page with their attributes, the text in them, and whether they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.said: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in _VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.said.append(data)


@pytest.fixture(scope="module")
def page():
    return render(report(MICROVM, until="exit").data).decode()


def test_the_page_holds_its_data(page):
    data = report(MICROVM, until="exit").data
    assert payload(page) == data


def test_the_same_boot_gives_the_same_bytes():
    assert render(report(MICROVM, until="exit").data) == render(report(MICROVM, until="exit").data)


def test_nothing_is_fetched(page):
    for tag, attributes in Page(page).elements:
        assert "src" not in attributes, tag
        if "href" in attributes:
            assert re.match(r"#|data:,$", attributes["href"]), attributes
        assert not [name for name in attributes if name.startswith("on")], attributes
    assert not re.search(r"@import|url\((?!data:)|https?://(?!www\.w3\.org/)", re.sub(r'id="payload">[^<]*', "", page))


def policy_hashes(texts):
    """As a Content-Security-Policy names the texts of elements."""
    return {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts}


def test_only_the_scripts_and_the_styles_of_the_page_are_allowed(page):
    found = Page(page)
    (policy,) = [attributes["content"] for tag, attributes in found.elements if attributes.get("http-equiv")]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert set(rules["script-src"].split()) == policy_hashes(found.scripts[1:])
    assert set(rules["style-src"].split()) == policy_hashes(re.findall("<style>(.*?)</style>", page, re.DOTALL))
    assert "connect-src" not in rules


def test_no_place_of_the_template_is_left(page):
    assert not re.search(r"@@[A-Za-z.]+@@", page)


def test_the_head_reads_without_a_script(page):
    said = " ".join(" ".join(Page(page).said).split())
    assert "conformance" not in said  # the guest of these tests has another name
    assert "guest on microvm" in said
    assert "handoff, 27 of 27 clauses met" in said
    assert "27 clauses are met" in said


def test_the_likely_cause_is_folded_and_a_violation_is_not():
    data = report(MICROVM).data | {"ok": False}
    data["causes"] = [{"title": "the title", "why": "the reason", "evidence": [], "remedy": "the remedy"}]
    data["findings"][0][1] = "violated"
    said = render(data).decode().split("<main")[0]
    for words in ("the title", "the reason", "the remedy"):
        assert words not in re.sub(r'<details class="causes">.*?</details>', "", said, flags=re.DOTALL)
    assert "<summary>Likely cause, and what to do</summary>" in said
    assert "<code>entry.eip</code>" in re.sub(r"<details class=\"met-all\">.*?</details>", "", said, flags=re.DOTALL)
    data["causes"] *= 2
    assert "<summary>2 likely causes, and what to do</summary>" in render(data).decode()


def test_what_is_hostile_is_text(tmp_path):
    initrd = tmp_path / "a<b>&'\"\n\x1b[2J.cpio"
    initrd.write_bytes(b"module")
    told = report(MICROVM, cmdline=HOSTILE, initrd=initrd)
    data = told.data | {"title": HOSTILE, "verdict": HOSTILE}
    data["causes"] = [{"title": HOSTILE, "why": HOSTILE, "evidence": [HOSTILE], "remedy": HOSTILE}]
    data["findings"][0] = [HOSTILE, "violated", HOSTILE, HOSTILE, [[1, HOSTILE], [0, HOSTILE]]]
    data["findings"][1][4] = [[1, HOSTILE]]
    page = render(data).decode()
    assert payload(page) == data
    harmless = render(report(MICROVM).data).decode()
    count = len(Page(harmless).scripts)
    found = Page(page)
    assert len(found.scripts) == count
    assert not [tag for tag, _ in found.elements if tag == "img"]
    assert "\x1b" not in page


def test_what_a_guest_prints_is_text():
    prints = "".join(f"    mov al, {byte:#x}\n    out dx, al\n" for byte in b"</script><!--\xff\x1b\n")
    data = report(BARE, kernel=flat_guest(f"    mov edx, 0x3f8\n{prints}"), until="exit").data
    page = render(data).decode()
    assert payload(page)["console"] or payload(page)["beyond"]["console"]
    assert page.count("</script>") == len(Page(page).scripts)
    assert "<!--" not in page
