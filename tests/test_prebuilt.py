"""What shim/prebuilt holds is what the sources give, byte for byte."""

from importlib import resources

from pvhboot.shim.stock import make_all

HOW = "run `python -m pvhboot.shim.stock shim/prebuilt`"


def test_prebuilt_is_rebuilt_byte_for_byte():
    kept = {file.name: file.read_bytes() for file in resources.files("pvhboot.shim").joinpath("prebuilt").iterdir()}
    built = make_all()
    assert sorted(kept) == sorted(built), HOW
    assert [name for name in built if built[name] != kept[name]] == [], HOW
