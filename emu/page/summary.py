"""The head of the page, which stands there without a script: what was booted, what the check found, why it failed."""

from collections.abc import Iterable, Iterator, Sequence
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
    yield '<details class="booted"><summary>What was booted</summary><dl class="facts">'
    for label, text in data["facts"]:
        yield f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>"
    yield "</dl></details></header>"


def _check(data: Json) -> Iterator[str]:
    findings = data["findings"]
    unseen = ' class="unseen"' if data["ok"] else ""  # all that follows is one line that says so
    yield f'<section class="check" aria-labelledby="check-title"><h2 id="check-title"{unseen}>The check</h2>'
    if not findings:
        yield "<p>The kernel was not entered, so there is nothing to check.</p>"
    for finding in findings:
        if finding[1] != OK:
            yield from _finding(finding)
    yield from _causes(data["causes"])
    met = [finding for finding in findings if finding[1] == OK]
    if met:
        yield f'<details class="met-all"><summary>{len(met)} clauses are met</summary><ul>'
        for clause, _, _, means, leads in met:
            links = "".join(f" {_link(step, title=words)}" for step, words in leads)
            yield f"<li><code>{escape(clause)}</code> {escape(means)}{links}</li>"
        yield "</ul></details>"
    yield "</section>"


def _finding(finding: Iterable[Any]) -> Iterator[str]:
    clause, status, detail, means, leads = finding
    yield f'<details class="finding {escape(status)}"><summary><span class="state">{escape(status)}</span> '
    yield f'<code>{escape(clause)}</code> <span class="what">{escape(detail)}</span></summary>'
    yield f'<div class="detail"><p>{escape(means)}</p>'
    if leads:
        yield f"<ul>{''.join(f'<li>{_lead(step, words)}</li>' for step, words in leads)}</ul>"
    yield "</div></details>"


def _lead(step: int, words: str) -> str:
    return f"{_link(step)}: {escape(words)}" if step else escape(words[:1].upper() + words[1:] + ".")


def _link(step: int, title: str = "") -> str:
    told = f' title="{escape(title)}"' if title else ""
    return f'<a href="#step={step}"{told}>step {step}</a>'


def _causes(causes: Sequence[Json]) -> Iterator[str]:
    """Folded: it gives away what somebody may want to find."""
    if not causes:
        return
    what = "Likely cause" if len(causes) == 1 else f"{len(causes)} likely causes"
    yield f'<details class="causes"><summary>{what}, and what to do</summary>'
    for cause in causes:
        yield f'<section class="cause"><h3>{escape(cause["title"])}</h3><p>{escape(cause["why"])}</p>'
        if cause["evidence"]:
            yield f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in cause['evidence'])}</ul>"
        yield f"<p>What to do: {escape(cause['remedy'])}</p></section>"
    yield "</details>"
