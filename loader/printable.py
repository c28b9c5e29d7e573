"""What comes from a file, a user or a guest, made fit for text."""

import codecs


def printable(data: bytes) -> str:
    """Bytes as ASCII, with a question mark for each that is none, or a control character."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in data)


def one_line(text: str) -> str:
    """The same text with line breaks, control characters and whatever else cannot be seen written as Python does: "\\n"."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def text_decoder() -> codecs.IncrementalDecoder:
    """Reads what comes byte by byte, as on a console, as UTF-8: `decode(data)` is the text that is complete with it, and
    `decode(b"", True)` in the end what was cut off. What is no UTF-8 becomes an escape, as \\xfc."""
    return codecs.getincrementaldecoder("utf-8")("backslashreplace")
