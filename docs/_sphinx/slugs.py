"""The anchor of a heading, as a forge makes it."""

import re


def slug(heading: str) -> str:
    """Of a heading's text, with its Markdown: what stands behind # in a link to it. The same again gets -1, -2 there."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.strip()).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
