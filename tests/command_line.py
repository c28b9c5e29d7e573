"""Runs `pvhboot` in this process: what must succeed, and what must fail in one line."""

from pvhboot.emu.cli import main


def command(capsys, *arguments):
    """Runs `pvhboot`, which must succeed; what it prints."""
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return out


def fails(capsys, *arguments):
    """Runs `pvhboot`, which must fail with one line; that line."""
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("pvhboot: ")
    assert err.count("\n") == 1
    return err
