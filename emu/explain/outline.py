"""What a chapter is, before there is a boot that it is told of: prose with gaps for what the trace says."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class When(NamedTuple):
    """A paragraph for boots of which a fact holds, or (`unless`) does not."""

    fact: str
    text: str
    unless: bool = False


class Outline(NamedTuple):
    """A chapter: its name and its title; why it is there, a paragraph each, with facts in braces; what to read; the registers
    that it hands on, with what is in them; the routines whose lines are shown where they are called, and what is to be looked
    at (both by their names)."""

    name: str
    title: str
    why: Sequence[str | When]
    see: Sequence[str]
    registers: Mapping[str, str] = {}
    routines: Sequence[str] = ()
    exhibits: Sequence[str] = ()


def filled(text: str, facts: Mapping[str, object]) -> str:
    """The text with its facts; KeyError if there is none of that name."""
    return text.format_map(facts)


def paragraphs(outline: Outline, facts: Mapping[str, object]) -> tuple[str, ...]:
    """Those that are for this boot."""
    told = []
    for paragraph in outline.why:
        if isinstance(paragraph, str):
            told.append(filled(paragraph, facts))
        elif bool(facts[paragraph.fact]) != paragraph.unless:
            told.append(filled(paragraph.text, facts))
    return tuple(told)
