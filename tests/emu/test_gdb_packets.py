"""The packets of gdb's protocol, cut from what comes in pieces of any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvhboot.emu.gdb.packets import PACKET_MAX, Framer, Kind, Message, ProtocolError, binary, frame


def packet(data):
    return Message(Kind.PACKET, data)


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (b"$g#67", [packet(b"g")]),
        (b"$#00", [packet(b"")]),
        (b"+$OK#9a", [packet(b"OK")]),
        (b"+++", []),
        (b"$OK#9A", [packet(b"OK")]),  # upper case
        (b"$g#67$?#3f\x03$c#63", [packet(b"g"), packet(b"?"), Message(Kind.INTERRUPT), packet(b"c")]),
        (b"$g#66", [Message(Kind.BROKEN)]),
        (b"$g#zz", [Message(Kind.BROKEN)]),
        (b"$g#6 $g#67", [Message(Kind.BROKEN), packet(b"g")]),
        (b"-", [Message(Kind.REFUSED)]),
        (b"$X0,1:}\x03#42", [packet(b"X0,1:#")]),  # an escape
        (b"$X0,1:\x03#22", [packet(b"X0,1:\x03")]),  # within a packet it is no Ctrl-C
    ],
)
def test_a_message_is_what_has_come(data, messages):
    data = data.replace(b"#42", b"#%02x" % (sum(b"X0,1:}\x03") & 0xFF)).replace(b"#22", b"#%02x" % (sum(b"X0,1:\x03") & 0xFF))
    assert Framer().feed(data) == messages
    framer = Framer()
    assert [message for at in range(len(data)) for message in framer.feed(data[at : at + 1])] == messages


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n", "0x47 where a packet begins"),
        (b"$g#67\n", "0x0a where a packet begins"),
        (b"$" + bytes(PACKET_MAX + 1), f"a packet of more than {PACKET_MAX} bytes"),
        (b"$" + bytes(PACKET_MAX + 1) + b"#00", f"a packet of more than {PACKET_MAX} bytes"),
        (b"$X}#d5", "ends within an escape"),
    ],
)
def test_what_is_no_packet_is_said(data, words):
    with pytest.raises(ProtocolError, match=words):
        Framer().feed(data)


def test_the_largest_packet_goes():
    assert Framer().feed(frame(b"x" * PACKET_MAX)) == [packet(b"x" * PACKET_MAX)]


@given(st.binary(max_size=64), st.integers(1, 9))
def test_what_is_framed_comes_out_again(data, step):
    framed, framer = frame(binary(data)), Framer()
    found = [message for at in range(0, len(framed), step) for message in framer.feed(framed[at : at + step])]
    assert found == [packet(data)]


@given(st.binary(max_size=64))
def test_hostile_bytes_give_messages_or_a_protocol_error(data):
    try:
        messages = Framer().feed(data)
    except ProtocolError:
        return
    assert all(isinstance(message, Message) for message in messages)


def test_nothing_that_is_sent_looks_like_a_run_or_an_end():
    """gdb takes `*` for a run of the byte before it."""
    assert not {*b"#$*"} & {*binary(bytes(range(256)))}
