"""What shim/prebuilt holds is what the sources give, byte for byte."""

from hashlib import sha256
from importlib import resources

import pytest
from pvhboot.shim.blob import Blob
from pvhboot.shim.machines import FIRMWARES
from pvhboot.shim.stock import default_blob, make_all

HOW = "run `python -m pvhboot.shim.stock shim/prebuilt`"


def test_prebuilt_is_rebuilt_byte_for_byte():
    kept = {file.name: file.read_bytes() for file in resources.files("pvhboot.shim").joinpath("prebuilt").iterdir()}
    built = make_all()
    assert sorted(kept) == sorted(built), HOW
    assert [name for name in built if built[name] != kept[name]] == [], HOW


@pytest.mark.parametrize("name", FIRMWARES)
def test_a_stock_blob_says_of_itself_what_its_description_says(name):
    blob = default_blob(FIRMWARES[name])
    assert blob.sha256 == sha256(blob.data).hexdigest() == blob.manifest["rom"]["sha256"]
    assert blob == Blob(blob.data, blob.symbols, blob.listing, blob.manifest)
    assert blob.patched == Blob(blob.data, *blob.description).patched == []
    assert blob.locate(blob.symbols["reset_vector"]) is not None
    with pytest.raises(AttributeError):
        blob.data = b""
