"""Compression: what is packed in pieces is unpacked again, and tells nothing of its time."""

import struct

import pytest
from archives import DIRECTORY, FILE, joined
from pvhboot.loader.codecs import CODECS
from pvhboot.loader.cpio import Entry
from pvhboot.loader.image import BytesImage
from pvhboot.loader.packing import PACKED_BY, compress, make_packer


@pytest.mark.parametrize("codec", PACKED_BY)
@pytest.mark.parametrize("size", [0, 1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1])
def test_what_is_packed_in_pieces_is_unpacked_again(codec, size):
    data = (b"some text, " * (size // 11 + 1))[:size]
    packer = make_packer(codec, 1)
    packed = b"".join(packer.compress(data[at : at + 777_777]) for at in range(0, size, 777_777)) + packer.flush()
    found = next(known for known in CODECS if packed.startswith(known.magic))
    assert found.name == codec
    from pvhboot.loader.codecs import decompressed

    *pieces, (_, end) = decompressed(BytesImage(packed), found, 0, len(packed))
    assert b"".join(piece for piece, _ in pieces) == data
    assert end == len(packed)


def test_what_is_packed_tells_no_time_and_no_name():
    """RFC 1952: MTIME is at 4, flags at 3; and Linux wants of xz the check CRC32 (1)."""
    data = joined(Entry(b"init", FILE, b"#!/bin/sh\n"), Entry(b"etc", DIRECTORY))
    packed = compress(data, "gzip")
    assert (packed[3], struct.unpack_from("<I", packed, 4)[0]) == (0, 0)
    assert compress(data, "xz")[7] == 1
