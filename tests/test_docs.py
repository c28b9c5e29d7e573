"""What the documentation shows is true: a third of the pages (test_docs_2.py and test_docs_3.py have the others), and what
holds for all together."""

import re
import shlex

import pytest
from documented import PAGES, PATIENCE, ROOT, check, page, share
from pages import EXCUSED
from pvhboot.emu.arguments import parse

MOST_EXCUSES = 24  # blocks that are not run, on all pages together


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("name", share(0))
def test_a_page_is_true(name, tmp_path):
    check(name, tmp_path)


def test_little_is_excused():
    excuses = [excuse for name in PAGES for excuse in page(name).excuses]
    print(*excuses, sep="\n")
    assert 0 < len(excuses) <= MOST_EXCUSES


def test_what_is_not_run_could_be_given():
    """The arguments exist."""
    blocks = [block for name in PAGES for block in page(name).blocks if block.kind == EXCUSED]
    texts = [(block.text.replace("\\\n", ""), "" if block.language == "sh" else r"\$ ") for block in blocks]
    lines = [line for text, prompt in texts for line in re.findall(rf"^{prompt}pvhboot (.*)$", text, re.MULTILINE)]
    assert lines
    for line in lines:
        parse(shlex.split(line, comments=True))


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_points_to_is_there(name):
    here = (ROOT / name).parent
    text = re.sub(r"^```.*?^```", "", (ROOT / name).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("https://", "http://", "#")):
            path, _, heading = target.partition("#")
            assert (here / path).exists(), target
            assert not heading or f"\n{heading}\n" in _anchors((here / path).read_text()), target


def _anchors(text):
    """A heading's anchor, as forges make it, a line each."""
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return "".join("\n" + re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") + "\n" for head in heads)
