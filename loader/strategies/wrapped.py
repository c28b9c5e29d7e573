"""Kernels as they are shipped: compressed, and in a bzImage; valid ones, and hostile ones."""

import struct
from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

from hypothesis import strategies as st
from pvhboot.shim.abi import boot_params
from pvhboot.shim.abi.elf import ELF_MAGIC

from ..codecs import CODECS
from ..packing import PACKED_BY, compress
from .hostile import elves
from .kernels import PvhKernel, pvh_elves

_BOMB_BYTES: Final = 8 << 20  # what a small bomb decompresses to: a block of lz4
_CODECS: Final = st.sampled_from(PACKED_BY)


class _Setup(NamedTuple):
    """What is free in a valid bzImage: `sectors` and `protocol` as in its header, `before` so many bytes between setup and
    payload, `version` where the version string `text` lies, as the header counts (0: there is none), `tail` bytes behind it."""

    sectors: int
    protocol: int
    before: int
    version: int
    text: bytes
    tail: int


_SETUPS: Final = st.builds(
    _Setup,
    sectors=st.sampled_from((4, 0, 1, 39, 255)),
    protocol=st.sampled_from((0x20F, 0x208, 0x20C, 0xFFFF)),
    before=st.integers(1, 600),
    version=st.sampled_from((0x100, 0, 0x90, 0x1FF)),  # the last is the end of the shortest setup
    text=st.sampled_from((b"6.1.0 (somebody@somewhere) #1", b"\x1b[2J\n\xff\x85", b"6.1.0")),
    tail=st.sampled_from((64, 0, 1)),
)


def _bzimage(setup: _Setup, payload: bytes) -> bytearray:
    """A bzImage around a payload."""
    size = boot_params.setup_bytes(setup.sectors)
    out = bytearray(b"MZ".ljust(size, b"\0"))
    for offset, magic in (boot_params.BOOT_FLAG, boot_params.HEADER_MAGIC):
        out[offset : offset + len(magic)] = magic
    _set(out, boot_params.SETUP_SECTS, setup.sectors)
    _set(out, boot_params.VERSION, setup.protocol)
    _set(out, boot_params.KERNEL_VERSION, setup.version)
    if setup.version:
        at = boot_params.KERNEL_VERSION_BASE + setup.version
        out[at:size] = setup.text[: size - at].ljust(size - at, b"\0")
    _set(out, boot_params.PAYLOAD, setup.before, len(payload))
    return out + b"\xf4" * setup.before + payload + bytes(setup.tail)


def _set(data: bytearray, field: tuple[int, str], *values: int) -> None:
    offset, code = field
    struct.pack_into(code, data, offset, *values)


def _payload(data: bytes, codec: str) -> bytes:
    """As the kernel's build makes it: the size is behind it, unless the codec has it there by itself."""
    follows = next(known.size_follows for known in CODECS if known.name == codec)
    return compress(data, codec) + (struct.pack("<I", len(data)) if follows else b"")


def _wrap_valid(kernel: PvhKernel, codec: str, setup: _Setup | None) -> PvhKernel:
    if setup is None:
        return kernel._replace(data=compress(kernel.image, codec), kind=f"{codec} of {kernel.kind}")
    data = bytes(_bzimage(setup, _payload(kernel.image, codec)))
    return kernel._replace(data=data, kind=f"bzImage ({codec}) of {kernel.kind}")


_WRAPPED: Final = st.builds(_wrap_valid, pvh_elves(), _CODECS, _SETUPS | st.none())


@st.composite
def pvh_kernels(draw: st.DrawFn) -> PvhKernel:
    """Valid PVH kernels: those of pvh_elves, compressed by any codec, or in a bzImage."""
    return draw(pvh_elves() | _WRAPPED)


@cache
def _bomb(codec: str) -> bytes:
    """Small, and decompresses to _BOMB_BYTES and more: an ELF header that promises nothing, and zeros."""
    return _payload((ELF_MAGIC + b"\x02\x01\x01").ljust(_BOMB_BYTES, b"\0"), codec)


def _damaged_payload(payload: bytes, cut: int, changes: list[tuple[int, int]], size: int | None) -> bytes:
    """With bytes changed, the last 4 saying another size, `cut` bytes of the end cut off; the numbers by their remainder."""
    out = bytearray(payload)
    for at, value in changes:
        out[at % len(out)] ^= value
    if size is not None:
        out[-4:] = struct.pack("<I", size)
    return bytes(out[: len(out) - cut % (len(out) + 1)])


_POSITIONS: Final = st.integers(0, 40) | st.integers(0, 1 << 16)
_CUTS: Final = st.just(0) | st.integers(0, 40) | st.integers(0, 1 << 18)
_CHANGE: Final = st.tuples(_POSITIONS, st.integers(1, 255))
_CHANGES: Final = st.lists(_CHANGE, max_size=3)
_WORDS: Final = st.sampled_from((0, 1, 4, 5, 0x200, 0x7FFFFFFF, 1 << 31, (1 << 32) - 1)) | st.integers(0, (1 << 32) - 1)
_BYTES: Final = st.sampled_from((b"", b"#!/bin/sh\n", ELF_MAGIC)) | st.binary(max_size=40)
_MAGICS: Final = st.builds(lambda codec, data: codec.magic + data, st.sampled_from(CODECS), st.binary(max_size=40))

_GOOD_PAYLOADS: Final = st.builds(lambda kernel, codec: _payload(kernel.image, codec), pvh_elves(), _CODECS)


def _any_payloads() -> st.SearchStrategy[bytes]:
    """Payloads of every codec: good, damaged, of something else than a kernel, bombs; and of no codec."""
    good = st.builds(_payload, pvh_elves().map(lambda kernel: kernel.image) | elves() | _BYTES, _CODECS)
    damaged = st.builds(_damaged_payload, _GOOD_PAYLOADS, _CUTS, _CHANGES, st.none() | _WORDS)
    corrupt = st.builds(_damaged_payload, _GOOD_PAYLOADS, st.just(0), st.lists(_CHANGE, min_size=1, max_size=2), st.none())
    twice = st.builds(_payload, good, _CODECS)
    lying = st.builds(_damaged_payload, _GOOD_PAYLOADS, st.just(0), st.just([]), _WORDS)
    return st.one_of(good, damaged, corrupt, lying, _MAGICS, twice, _CODECS.map(_bomb), _BYTES)


_PAYLOADS: Final = _any_payloads()
# Fields of the setup header that a loader of the payload reads, and values for each.
_LIES: Final = st.lists(
    st.one_of(
        st.tuples(st.just(boot_params.SETUP_SECTS), st.tuples(st.integers(0, 255))),
        st.tuples(st.just(boot_params.VERSION), st.tuples(st.sampled_from((0, 0x207, 0x208, 0xFFFF)))),
        st.tuples(st.just(boot_params.KERNEL_VERSION), st.tuples(st.sampled_from((0, 1, 0xFFFF)) | st.integers(0, 0xFFFF))),
        st.tuples(st.just(boot_params.PAYLOAD), st.tuples(_WORDS, _WORDS)),
        st.tuples(st.just((boot_params.PAYLOAD[0], "<I")), st.tuples(_WORDS)),
        st.tuples(st.just((boot_params.PAYLOAD[0] + 4, "<I")), st.tuples(_WORDS)),
    ),
    max_size=2,
)


def _hostile_bzimage(
    setup: _Setup,
    payload: bytes,
    lies: Sequence[tuple[tuple[int, str], tuple[int, ...]]],
    short: int,
    changes: Sequence[tuple[int, int]],
    cut: int,
) -> bytes:
    """`short`: so many bytes less than the payload's the header says that it has; `cut`: so many are cut off the end."""
    data = _bzimage(setup, payload)
    _set(data, boot_params.PAYLOAD, setup.before, max(len(payload) - short, 0))
    for field, values in lies:
        _set(data, field, *values)
    for where, value in changes:
        data[where % len(data)] ^= value
    return bytes(data[: len(data) - cut % (len(data) + 1)])


_SHORT: Final = st.just(0) | st.integers(-5, 5) | st.integers(0, 40)
_NONE: Final = st.just(())
_FLIPS: Final = st.lists(st.tuples(st.integers(0x1F0, 0x270), st.integers(1, 255)), min_size=1, max_size=2)
_HOSTILE_BZIMAGES: Final = st.one_of(
    st.builds(_hostile_bzimage, _SETUPS, _GOOD_PAYLOADS, _LIES, _SHORT, _NONE, st.just(0)),
    st.builds(_hostile_bzimage, _SETUPS, _PAYLOADS, _NONE, st.just(0), _NONE, st.just(0)),
    st.builds(_hostile_bzimage, _SETUPS, _PAYLOADS, _LIES, _SHORT, _NONE | _FLIPS, _CUTS),
)


@st.composite
def bzimages(draw: st.DrawFn) -> bytes:
    """bzImages from valid to hostile: setup headers that lie, payloads of every codec that are truncated, corrupt, of
    something else, of another size than they say, or decompress to many megabytes; cut off anywhere."""
    return draw(_HOSTILE_BZIMAGES)


def _any_files() -> st.SearchStrategy[bytes]:
    single = st.one_of(elves(), bzimages(), pvh_kernels().map(lambda kernel: kernel.data))
    packed = st.builds(compress, single, _CODECS)
    damaged = st.builds(_damaged_payload, packed, _CUTS, _CHANGES, st.none())
    return st.one_of(single, packed, damaged, _MAGICS, st.binary(max_size=600))


_ANY_FILES: Final = _any_files()


@st.composite
def kernels(draw: st.DrawFn) -> bytes:
    """Any file that may be offered as a kernel: valid ones, those of elves and bzimages, these compressed, by another codec or
    the same again, damaged or not; and bytes that are none of it."""
    return draw(_ANY_FILES)
