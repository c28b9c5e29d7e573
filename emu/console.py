"""The interactive console: this terminal is COM1 of the board.

A terminal becomes raw, so that the guest gets each key as it is pressed, and is restored whatever happens: by the context's
end, by a handler before a signal ends this process, or, if it dies without a word, by a child that waits for just that.
Anything else on standard input, a pipe or a file, is typed as it is, once the guest says by RTS that it receives; its end ends
nothing, which is said when the guest has taken all and goes on without a limit of time.
"""

import errno
import os
import select
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from math import inf
from types import FrameType
from typing import Any, Final, NoReturn

from pvhboot.loader.printable import text_decoder

from .board import Board

ESCAPE: Final = 0x01  # Ctrl-A
_LEAVE: Final = b"xX"
_HELP: Final = b"hH?"
HELP_TEXT: Final = "Ctrl-A X leaves, Ctrl-A Ctrl-A sends a Ctrl-A, Ctrl-A H says this"
_GONE: Final = "the terminal has gone"
_QUIET: Final = b"quiet"  # Linux Documentation/admin-guide/kernel-parameters.txt
_QUIET_TEXT: Final = "with quiet nothing comes until init starts: of a distribution's kernel half a minute (docs/console.md)"
_GOES_ON_TEXT: Final = (
    "console: all input is typed, and the guest goes on: have it end itself (reboot -f), give --timeout, or press Ctrl-C"
)
_PATIENCE: Final = 5  # seconds: so long a guest that has taken all input may go on before that is said
_STDIN: Final = 0
_CHUNK: Final = 4096  # bytes; so many at most wait for the guest to read them
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Keys:
    """What is typed, without the keys that are meant for the console."""

    def __init__(self, leave: Callable[[], None], show_help: Callable[[], None]) -> None:
        self._leave = leave
        self._show_help = show_help
        self._escaped = False

    def filter(self, typed: bytes) -> bytes:
        """What of it the guest gets. Ctrl-A before a key that means nothing is dropped with it."""
        passed = bytearray()
        for key in typed:
            if not self._escaped:
                if key == ESCAPE:
                    self._escaped = True
                else:
                    passed.append(key)
                continue
            self._escaped = False
            if key == ESCAPE:
                passed.append(key)
            elif key in _LEAVE:
                self._leave()
                break
            elif key in _HELP:
                self._show_help()
        return bytes(passed)


class Console:
    """Standard input and output, or other descriptors, as a board's terminal: see board.Input."""

    def __init__(self, board: Board, source: int | None, write: Callable[[bytes], None]) -> None:
        """Reads what is typed from a descriptor, if there is one; `write` shows something to whoever types."""
        self._board = board
        self._source = source  # None: nothing more will come
        self._polled = threading.Event()
        self._keys: Keys | None = None
        self._typed = False  # by a pipe or a file whose end nobody has been told of
        self._taken_at: float | None = None  # by time.monotonic: since when a guest has had all that there was
        if source is not None and os.isatty(source):
            self._keys = Keys(lambda: board.leave("Ctrl-A X"), lambda: write(f"\r\n{HELP_TEXT}\r\n".encode()))
        else:
            board.serial.waits_for_rts = True

    def poll(self, seconds: float) -> None:
        """See Input."""
        room = max(_CHUNK - self._board.serial.waiting, 0)
        source = self._source
        if source is None or (not room and self._keys is None):
            if source is None and self._typed and not self._board.serial.waiting and self._board.deadline == inf:
                self._goes_on()
            if seconds:
                time.sleep(seconds)
            return
        if select.select([source], [], [], seconds)[0]:
            try:
                data = os.read(source, room if self._keys is None else _CHUNK)
            except OSError:
                data = b""
            if not data:
                self._source = None
            if self._keys is not None:
                if not data:
                    self._board.leave(_GONE)
                data = self._keys.filter(data)  # also what a guest that has hung will never read
            elif data:
                self._typed = True
            self._board.serial.receive(data[:room])
        self._polled.set()

    def _goes_on(self) -> None:
        """All input has been taken. Once, after a while: what whoever waits for the end of it can do."""
        now = time.monotonic()
        if self._taken_at is None:
            self._taken_at = now
        if now < self._taken_at + _PATIENCE:
            return
        self._typed = False
        if sys.stderr is not None:
            with suppress(OSError):
                print(f"\n{_GOES_ON_TEXT}", file=sys.stderr, flush=True)

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """See Input."""
        with ExitStack() as stack:
            end, over = os.pipe()
            stack.callback(os.close, end)
            ended = threading.Event()
            thread = threading.Thread(target=self._watch, args=(wake, end, ended), daemon=True)
            try:
                with _signals_blocked():  # they are for the main thread
                    thread.start()
                yield
            finally:
                os.close(over)
                ended.set()
                self._polled.set()
                if thread.ident is not None:  # else a signal has come before it was started
                    thread.join()

    def _watch(self, wake: Callable[[], None], end: int, ended: threading.Event) -> None:
        while (source := self._source) is not None:
            ready, _, _ = select.select([source, end], [], [])
            if end in ready:
                return
            self._polled.clear()
            if ended.is_set():
                return
            wake()
            self._polled.wait()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """So that they are, too, in a thread or a child that is made meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Screen:
    """Where COM1 prints: standard output, byte after byte."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._stream = getattr(sys.stdout, "buffer", None)
        self._decoder = text_decoder()

    def write(self, data: bytes) -> None:
        """Shows it at once. A terminal that has gone ends the run."""
        try:
            if self._stream is None:
                sys.stdout.write(self._decoder.decode(data))
                sys.stdout.flush()
            else:
                self._stream.write(data)
                self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            self._board.leave(_GONE)


@contextmanager
def at_console(board: Board) -> Iterator[None]:
    """As long as the context lasts, this process's standard input and output are the board's terminal."""
    screen = Screen(board)
    source = None if sys.__stdin__ is None else _STDIN  # closed when Python started, the number is another file's by now
    board.on_console = screen.write
    board.input = Console(board, source, screen.write)
    if source is not None and os.isatty(source):
        print(f"console: {HELP_TEXT}", flush=True)
        if _QUIET in (board.plan.cmdline or b"").split():
            print(f"console: {_QUIET_TEXT}", flush=True)
    try:
        with nullcontext() if source is None else raw_terminal(source):
            yield
    finally:
        board.input = board.on_console = None


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """The terminal, if `fd` is one, gives each key at once and unchanged, as long as the context
    lasts; what is printed goes on having its newlines translated. In the main thread only."""
    if not os.isatty(fd):
        yield
        return
    with suppress(termios.error):
        termios.tcflow(
            fd, termios.TCOON
        )  # in the background it stops here: how the terminal is set there is not to be restored
    before = termios.tcgetattr(fd)
    raw = _raw(before)
    with ExitStack() as stack:
        stack.enter_context(_guarded(fd, before, raw))

        def restore() -> None:
            _set(fd, before)

        def end(number: int, _frame: FrameType | None) -> None:
            restore()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

        def pause(_number: int, _frame: FrameType | None) -> None:
            restore()
            os.kill(os.getpid(), signal.SIGSTOP)
            _set(fd, raw)

        for number, handler in (*((number, end) for number in _ENDING), (signal.SIGTSTP, pause)):
            if (usual := signal.getsignal(number)) is not signal.SIG_IGN:
                stack.callback(signal.signal, number, signal.SIG_DFL if usual is None else usual)
                signal.signal(number, handler)
        stack.callback(restore)
        _set(fd, raw)
        yield


def _set(fd: int, attributes: list[Any]) -> None:
    """At once: one that does not take its output any more would have everybody wait. In the background it is stopped here."""
    while True:
        try:
            termios.tcsetattr(fd, termios.TCSANOW, attributes)
        except termios.error as error:
            if error.args[0] == errno.EINTR:  # by another signal, as it is continued
                continue
        return  # done, or the terminal has gone


def _raw(attributes: list[Any]) -> list[Any]:
    """No line editing, no echo, no key that sends a signal or holds the output, 8 bits; output as before."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = attributes
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR | termios.ICRNL
    ) & ~(termios.IXON | termios.INPCK)
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    cc = [*cc]
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, cc]


@contextmanager
def _guarded(fd: int, before: list[Any], raw: list[Any]) -> Iterator[None]:
    """When the context ends, or this process, a child restores the terminal, if nobody has."""
    theirs, ours = os.pipe()
    child = 0
    try:
        with _signals_blocked():
            child = os.fork()
            if not child:
                _guard(fd, before, raw, theirs, ours)
        os.close(theirs)
        yield
    finally:
        os.close(ours)
        if child:
            with suppress(ChildProcessError):  # who has SIGCHLD ignored has no children to wait for
                os.waitpid(child, 0)


def _guard(fd: int, before: list[Any], raw: list[Any], theirs: int, ours: int) -> NoReturn:
    """The child, with all signals blocked: a key that ends its parent, or being in the background, is nothing to it."""
    try:
        os.close(ours)
        os.read(theirs, 1)  # its end
        # Else it has been restored, or a shell that has its terminal back has set it as it likes.
        if termios.tcgetattr(fd) == raw:
            termios.tcsetattr(fd, termios.TCSANOW, before)
    finally:
        os._exit(0)
