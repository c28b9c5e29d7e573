"""The server for gdb, packet by packet, by a client that is none."""

import socket

import pytest
from debugging import ENTRY, EXIT_7, debugged_boot, driven_boot, hello, kernel_of, kill
from pvhboot.emu.engines.base import Until
from pvhboot.emu.gdb.packets import PACKET_MAX
from pvhboot.emu.reasons import CONSOLE, DEBUGGER, EXIT, FAULT, HALT, HANDOFF, LIMIT
from pvhboot.shim.abi.x86 import RESET_VECTOR
from pvhboot.shim.errors import BootError
from pvhboot.shim.machines import BARE
from pvhboot.shim.stock import default_blob

BLOB = default_blob(BARE)
SPIN = b"\xeb\xfe"
STORE = bytes.fromhex("c705 00003000 78563412")  # mov dword ptr [0x300000], 0x12345678
LOAD = bytes.fromhex("a1 00003000")  # mov eax, [0x300000]


def test_a_session_from_reset_to_a_kill():
    def script(client):
        hello(client)
        assert client.ask(b"?") == b"T05thread:1;"
        assert client.read_ip() == RESET_VECTOR
        assert client.ask(b"Z0,%x,1" % BLOB.symbols["protected_mode"]) == b"OK"
        assert client.run(b"vCont;c") == ("pvhboot: 32-bit code from here on\n", b"T05thread:1;swbreak:;")
        assert client.read_ip() == BLOB.symbols["protected_mode"]
        kill(client)

    outcome = driven_boot(script)
    assert (outcome.run.stop.reason, outcome.run.stop.detail) == (DEBUGGER, "gdb has killed the guest")
    assert outcome.run.stop.rip == BLOB.symbols["protected_mode"]
    assert not outcome.ok


def test_a_hardware_breakpoint_is_told_as_one_and_a_removed_one_is_gone(engine_name):
    def script(client):
        hello(client)
        first, second = BLOB.symbols["real_mode"], BLOB.symbols["protected_mode"]
        assert client.ask(b"Z1,%x,1" % first) == client.ask(b"Z1,%x,1" % second) == b"OK"
        assert client.run(b"c")[1] == b"T05thread:1;hwbreak:;"
        assert client.read_ip() == first
        assert client.ask(b"z1,%x,1" % second) == b"OK"
        assert "handoff" in client.run(b"c")[0]
        kill(client)

    assert driven_boot(script, engine=engine_name).run.stop.reason == HANDOFF


def test_more_breakpoints_than_a_processor_has(engine_name):
    """The debug registers of KVM are four, and one of them waits for the handoff."""
    walked = [BLOB.symbols[name] for name in ("real_mode", "protected_mode", "strings_done", "handoff")]
    places = [*walked, BLOB.symbols["params_no_magic"]]

    def script(client):
        hello(client)
        for place in places:
            assert client.ask(b"Z0,%x,1" % place) == b"OK"
        seen = []
        while "handoff:" not in client.run(b"c")[0]:
            seen.append(client.read_ip())
        assert seen == walked
        kill(client)

    driven_boot(script, engine=engine_name)


def test_the_kernel_is_entered_as_if_there_were_a_breakpoint(engine_name):
    def script(client):
        hello(client)
        said, reply = client.run(b"c")
        assert f"handoff: the kernel's first instruction, at {ENTRY:#x}, is next" in said
        assert "check: 27 of 27 clauses of the PVH ABI are met" in said
        assert reply == b"T11thread:1;"  # SIGSTOP
        assert client.read_ip() == ENTRY
        assert client.ask(b"D") == b"OK"

    outcome = driven_boot(script, engine=engine_name)
    assert (outcome.run.stop.reason, outcome.run.stop.rip) == (HANDOFF, ENTRY)
    assert outcome.ok
    if engine_name == "unicorn":
        assert outcome.handoff.counts["instructions"] > 100  # all are counted, though nobody has stepped


def test_a_step_onto_the_entry_is_the_handoff(engine_name):
    def script(client):
        hello(client)
        told = [client.run(b"vCont;s:1")[0]]
        while "handoff" not in told[-1]:
            assert client.read_ip() != ENTRY
            told.append(client.run(b"s")[0])
        assert client.read_ip() == ENTRY
        assert len(told) > 100
        assert told[4] == "pvhboot: 32-bit code from here on\n"
        assert not any(told[:4] + told[5:-1])
        assert "handoff" not in client.run(b"s")[0]
        kill(client)

    assert driven_boot(script, engine=engine_name, cmdline="some words").clean


def test_a_step_within_a_range_takes_a_repeated_instruction_as_a_whole(engine_name):
    """What gdb's `next` asks for: or else it would be asked, and would answer, 100 000 times."""
    filling = bytes.fromhex("bf00003000 b9a0860100 f3aa")  # mov edi, 0x300000; mov ecx, 100000; rep stosb

    def script(client):
        hello(client)
        client.run(b"c")
        client.run(b"s")
        client.run(b"s")
        start = ENTRY + len(filling) - 2
        assert client.read_ip() == start
        assert b";r" in client.ask(b"vCont?")
        assert client.run(b"vCont;r%x,%x:1" % (start, start + 2)) == ("", b"T05thread:1;")
        assert client.read_ip() == start + 2
        assert client.ask(b"p1") == b"00000000"  # ecx
        assert client.ask(b"vCont;r1") == b"E16"
        kill(client)

    driven_boot(script, engine=engine_name, kernel=kernel_of(filling + SPIN))


@pytest.mark.parametrize(
    ("until", "reason"),
    [(Until(HANDOFF), HANDOFF), (Until(EXIT), EXIT)],
)
def test_detached_the_run_goes_on_to_its_end(engine_name, until, reason):
    def script(client):
        hello(client)
        client.ask(b"Z0,%x,1" % BLOB.symbols["handoff"])
        client.run(b"s")
        assert client.ask(b"D;1") == b"OK"

    outcome = driven_boot(script, engine=engine_name, until=until)
    assert outcome.run.stop.reason == reason
    assert outcome.ok


@pytest.mark.parametrize(
    ("code", "reason", "signal", "last"),
    [
        (EXIT_7, EXIT, b"T11", b"W07"),
        (b"\xf4", HALT, b"T11", b"X11"),
        (b"\x0f\x0b", FAULT, b"T0b", b"X0b"),
        (SPIN, LIMIT, b"T18", b"X18"),
    ],
)
def test_the_end_is_a_stop_and_only_then_an_exit(code, reason, signal, last):
    """So that gdb can look at what is there."""

    def script(client):
        hello(client)
        client.run(b"c")
        said, reply = client.run(b"c")
        assert f"pvhboot: end: {reason}" in said
        assert reply == signal + b"thread:1;"
        assert client.read_ip() in range(ENTRY, ENTRY + len(code) + 1)
        assert client.ask(b"m%x,2" % ENTRY) == code[:2].ljust(2, b"\0").hex().encode()
        assert client.ask(b"c") == last

    outcome = driven_boot(script, kernel=kernel_of(code), until=Until(EXIT), seconds=2)
    assert outcome.run.stop.reason == reason


def test_a_watchpoint_on_a_store(engine_name):
    def script(client):
        hello(client)
        client.run(b"c")
        assert client.ask(b"Z2,300002,1") == b"OK"
        said, reply = client.run(b"c")
        assert reply == b"T05thread:1;watch:300002;"
        assert client.read_ip() == ENTRY + len(STORE)
        assert "0x300000" in said or "0x300002 has changed from 00 to 34" in said
        assert client.ask(b"z2,300002,1") == b"OK"
        assert "the guest left with 7" in client.run(b"c")[0]
        kill(client)

    driven_boot(script, engine=engine_name, kernel=kernel_of(STORE + EXIT_7))


@pytest.mark.parametrize(("number", "reply"), [(3, b"rwatch"), (4, b"awatch")])
def test_a_watchpoint_on_a_load(number, reply):
    def script(client):
        hello(client)
        client.run(b"c")
        assert client.ask(b"Z%d,300000,4" % number) == b"OK"
        said, stop = client.run(b"c")
        assert stop == b"T05thread:1;%s:300000;" % reply
        assert said == "pvhboot: kernel_entry+0xa loads 4 bytes from 0x300000\n" or number == 4
        kill(client)

    driven_boot(script, kernel=kernel_of(STORE + LOAD + EXIT_7))


def test_kvm_says_that_it_cannot_watch_loads():
    from host import kvm_problem

    if problem := kvm_problem():
        pytest.skip(problem)

    def script(client):
        hello(client)
        assert client.ask(b"Z3,300000,4") == client.ask(b"Z4,300000,4") == b""
        kill(client)

    driven_boot(script, engine="kvm")


def test_ctrl_c_stops_an_endless_loop_as_often_as_one_likes(engine_name):
    def script(client):
        hello(client)
        client.run(b"c")
        for _ in range(5):
            assert client.interrupt(b"c") == b"T02thread:1;"
            assert client.read_ip() == ENTRY
        client.send(b"\x03")  # while it stands: no later run is stopped by it
        assert client.ask(b"p8") == b"00001000"
        assert client.ask(b"P8=02001000") == b"OK"
        assert "the guest left with 7" in client.run(b"c")[0]
        kill(client)

    driven_boot(script, engine=engine_name, kernel=kernel_of(SPIN + EXIT_7), until=Until(EXIT))


def test_a_client_that_goes_away_ends_the_run(engine_name):
    def script(client):
        hello(client)
        client.run(b"c")
        client.packet(b"c")
        client.take()

    outcome = driven_boot(script, engine=engine_name, kernel=kernel_of(SPIN))
    assert outcome.run.stop[:2] == (DEBUGGER, "gdb has closed the connection")
    assert not outcome.ok


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", "the byte 0x47 where a packet begins: the client is no gdb"),
        (b"$" + b"0" * 100_000, f"a packet of more than {PACKET_MAX} bytes"),
        (b"", "gdb has closed the connection"),
    ],
)
def test_who_is_no_gdb_is_told_of(data, words):
    def script(client):
        client.send(data)
        if data:
            with pytest.raises((EOFError, ConnectionError)):
                client.take()

    outcome = driven_boot(script)
    assert outcome.run.stop[:2] == (DEBUGGER, words)


def test_a_broken_packet_is_asked_for_again_and_an_answer_is_repeated():
    def script(client):
        client.send(b"$?#00")
        assert client.take() == b"-"
        assert client.ask(b"?") == b"T05thread:1;"
        client.send(b"-")
        assert client.answer() == b"T05thread:1;"
        assert client.ask(b"QStartNoAckMode") == b"OK"
        client.packet(b"?")
        assert client.take() == b"$"
        kill(client)

    driven_boot(script)


def test_a_second_client_is_refused():
    ports = []

    def script(client):
        hello(client)
        port = client.socket.getpeername()[1]
        ports.append(port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
        kill(client)

    driven_boot(script)
    assert ports


def test_a_busy_port_is_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BootError, match=f"cannot wait for gdb on 127.0.0.1:{port}: somebody has it; name another port"):
            debugged_boot(lambda _port: None, port=port)


def test_only_this_host_is_listened_to():
    def script(client):
        assert client.socket.getpeername()[0] == "127.0.0.1"
        port = client.socket.getpeername()[1]
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port), 5):  # this host's, too
            pass
        kill(client)

    driven_boot(script)


def test_the_time_that_gdb_takes_is_not_the_guests():
    def script(client):
        from time import sleep

        hello(client)
        client.run(b"c")
        sleep(1.5)
        assert "the guest left with 7" in client.run(b"c")[0]
        kill(client)

    driven_boot(script, kernel=kernel_of(EXIT_7), seconds=1)


def test_the_console_is_an_end_too():
    def script(client):
        hello(client)
        client.run(b"c")
        assert "end: console" in client.run(b"c")[0]
        kill(client)

    printing = bytes.fromhex("66baf803 b041 ee") + SPIN  # mov dx, 0x3f8; mov al, 'A'; out dx, al
    outcome = driven_boot(script, kernel=kernel_of(printing), until=Until(CONSOLE, "A"))
    assert outcome.console == b"A"
