"""What comes from a file or a user, made fit for a line of text."""


def printable(data: bytes) -> str:
    """Bytes as ASCII, with a question mark for each that is none, or a control character."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in data)


def one_line(text: str) -> str:
    """The same text with line breaks, control characters and whatever else cannot be seen written as Python does: "\\n"."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
