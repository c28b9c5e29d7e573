"""What a guest prints on COM1 is shown as UTF-8, whatever the engine, and what is none as escapes."""

import pytest
from host import kvm_problem, qemu_problem
from pvhboot.emu.cli import main
from pvhboot.loader.printable import text_decoder

PRINTS = """# Clobbers: eax, edx, esi, flags

    mov esi, offset text
    mov dx, 0x3f8
next_byte:
    lodsb
    test al, al
    jz done
    out dx, al
    jmp next_byte
done:
    ret

text:
    .ascii "Grüße, 3 €\\n"
    .byte 0xfc, 0xe2, 0x82, 0
"""
SHOWN = "Grüße, 3 €\n\\xfc\\xe2\\x82\n"  # the last is cut off by the end


@pytest.mark.parametrize("engine", ["unicorn", "kvm", "qemu"])
def test_text_of_a_stage_is_shown_as_it_was_written(engine, tmp_path, capsys):
    if engine == "qemu" and (problem := qemu_problem()):
        pytest.skip(problem)
    if engine == "kvm" and (problem := kvm_problem()):
        pytest.skip(problem)
    (tmp_path / "prints.s").write_text(PRINTS)
    rom = str(tmp_path / "prints.bin")
    assert main(["build", "--stage", f"before-handoff={tmp_path / 'prints.s'}", "-o", rom]) == 0
    capsys.readouterr()
    assert main(["boot", "--firmware", rom, "--engine", engine, "--until", "handoff"]) == 0
    assert f"\n{SHOWN}handoff at " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"plain\r\n", "plain\r\n"),
        ("é€\N{GRINNING FACE}".encode(), "é€\N{GRINNING FACE}"),
        ("é".encode("latin-1") + b"t", "\\xe9t"),
        (b"\xf0\x9f\x98", "\\xf0\\x9f\\x98"),
        (b"\xc3\xc3\xa9", "\\xc3é"),
        (b"\xc0\x80", "\\xc0\\x80"),
    ],
)
def test_bytes_come_one_by_one(printed, shown):
    decoder = text_decoder()
    pieces = [decoder.decode(bytes((byte,))) for byte in printed]
    assert "".join(pieces) + decoder.decode(b"", True) == shown


def test_a_character_is_shown_when_it_is_whole():
    decoder = text_decoder()
    assert [decoder.decode(bytes((byte,))) for byte in "a€b".encode()] == ["a", "", "", "€", "b"]
