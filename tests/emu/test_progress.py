"""Progress is for a terminal, and leaves no trace on it."""

import io

from pvhboot.emu import progress
from pvhboot.emu.progress import shown_progress, shown_words


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_pipe_sees_nothing(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with shown_progress("unpacking") as show:
        assert show is None
    assert stream.getvalue() == ""


def test_a_terminal_sees_it_go_on_and_then_nothing_any_more(monkeypatch):
    stream, now = Terminal(), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with shown_progress("unpacking x") as show:
        for percent in range(0, 101, 10):
            show(percent, 100)
            now[0] += 0.07
    assert stream.getvalue() == "".join(f"\r\x1b[Kunpacking x: {percent} %" for percent in (50, 70, 90)) + "\r\x1b[K"


def test_what_is_over_at_once_shows_nothing(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with shown_progress("unpacking") as show:
        show(0, 10)
        show(10, 10)
    assert stream.getvalue() == ""


def test_words_stand_for_what_has_no_known_total(monkeypatch):
    stream, now = Terminal(), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with shown_words() as show:
        for words in ("too early", "two", "three"):
            show(words)
            now[0] += 0.5
    assert stream.getvalue() == "\r\x1b[Ktwo\r\x1b[Kthree\r\x1b[K"
