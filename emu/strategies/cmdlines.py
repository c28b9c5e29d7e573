"""Command lines."""

from functools import cache
from typing import Final

from hypothesis import strategies as st
from pvhboot.shim.machines import CMDLINE_MAX

# What firmware, loaders and kernels have taken apart wrongly.
_WORDS: Final = (
    b"console=ttyS0",
    b"",
    b"--",
    b'a="b c"',
    b'"',
    b"'",
    b"\\",
    b"%s",
    b"\t",
    b"\n",
    b"\xff",
    "ä".encode(),
    b"x" * 70,
)
_EDGES: Final = (0, 1, 255, 256, 2047, 2048, 4095, 4096)  # bytes: buffers that there were


@st.composite
def cmdlines(draw: st.DrawFn, most: int = CMDLINE_MAX - 1) -> str:
    """Command lines as make_plan takes them, of `most` bytes at most: words with quotes and any bytes but NUL (which is no
    UTF-8 stands as a surrogate: `surrogateescape`), and lines of the lengths at which buffers end."""
    return draw(_lines(most)).decode("utf-8", "surrogateescape")


@cache
def _lines(most: int) -> st.SearchStrategy[bytes]:
    word = st.sampled_from(_WORDS) | st.binary(max_size=12).map(lambda data: data.replace(b"\0", b" "))
    words = st.lists(word, max_size=8).map(b" ".join)
    edges = sorted({0, most, max(0, most - 1), *(edge for edge in _EDGES if edge < most)})
    of_length = st.builds(_of_length, words, st.sampled_from(edges))
    return words.map(lambda line: line[:most]) | of_length


def _of_length(line: bytes, size: int) -> bytes:
    return line[:size].ljust(size, b"a")
