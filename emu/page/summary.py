"""The head of the page, which stands there without a script: what was booted, what the check found, why it failed."""

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from ..check import OK
from .columns import Json


def summary(data: Json) -> str:
    """As HTML, of the page's data."""
    return "".join((*_head(data), *_check(data)))


def _head(data: Json) -> Iterator[str]:
    yield '<header><p class="kicker">pvhboot report</p>'
    yield f"<h1>{escape(data['title'])}</h1>"
    yield f'<p class="verdict {"ok" if data["ok"] else "bad"}">{escape(data["verdict"])}</p>'
    yield '<dl class="facts">'
    for label, text in data["facts"]:
        yield f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>"
    yield "</dl></header>"


def _check(data: Json) -> Iterator[str]:
    yield '<section class="check" aria-labelledby="check-title"><h2 id="check-title">The check</h2>'
    findings = data["findings"]
    if not findings:
        yield "<p>The kernel was not entered, so there is nothing to check.</p>"
    for finding in findings:
        if finding[1] != OK:
            yield from _finding(finding)
    for cause in data["causes"]:
        yield from _cause(cause)
    met = [finding for finding in findings if finding[1] == OK]
    if met:
        yield f'<details class="met-all"><summary>{len(met)} clauses are met</summary><ul>'
        for clause, _, _, means, steps in met:
            yield f"<li><code>{escape(clause)}</code> {escape(means)}{_links(steps)}</li>"
        yield "</ul></details>"
    yield "</section>"


def _finding(finding: Iterable[Any]) -> Iterator[str]:
    clause, status, detail, means, steps = finding
    yield f'<details class="finding {escape(status)}"><summary><span class="state">{escape(status)}</span> '
    yield f'<code>{escape(clause)}</code> <span class="what">{escape(detail)}</span></summary>'
    yield f'<div class="detail"><p>{escape(means)}</p>'
    if steps:
        yield f"<p>It was last touched at{_links(steps)}.</p>"
    yield "</div></details>"


def _cause(cause: Json) -> Iterator[str]:
    yield f'<section class="cause"><h3>likely cause: {escape(cause["title"])}</h3><p>{escape(cause["why"])}</p>'
    if cause["evidence"]:
        yield f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in cause['evidence'])}</ul>"
    yield f"<p>What to do: {escape(cause['remedy'])}</p></section>"


def _links(steps: Iterable[int]) -> str:
    return "".join(f' <a href="#step={step}">step {step}</a>' for step in steps)
