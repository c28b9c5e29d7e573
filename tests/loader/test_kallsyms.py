"""kallsyms: what Linux's own tables give, of every layout, of Debian's kernels, and of what only looks like them."""

import random
from functools import cache

import pytest
from forge_elf import entry_note, forge, load_segment, note_segment
from forge_kallsyms import BASES, PADDR, RELEASES, Ksym, kernel, token_table
from hypothesis import given, settings
from hypothesis import strategies as st
from pvhboot.loader.elf import read_header, read_program_headers
from pvhboot.loader.image import BytesImage
from pvhboot.loader.inspection import inspect
from pvhboot.loader.kallsyms import find_kallsyms
from pvhboot.loader.kernel import Kernel
from pvhboot.loader.symbols import CodeSymbol, code_symbol, code_symbols
from pvhboot.shim.elfwriter import write_elf

DIGITS = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0"
LONG = "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyz_.0123456789ABCDEF", k=500))  # in more than 127 codes


def made_up(bits=64, count=900, per_cpu=20):
    """Functions, weak ones, data between them, two of one name, one with a long name; per-CPU symbols in front."""
    base = BASES[bits]
    symbols = [Ksym(0x40 * number, "A", f"pcpu_{number:x}") for number in range(per_cpu)]
    symbols += [Ksym(base, "T", "_text"), Ksym(base, "T", "startup_64")]
    for number in range(count - len(symbols) - 4):
        kind = "tTdWRtwb"[number % 8]
        symbols.append(
            Ksym(base + 0x100 + 0x30 * number, kind, f"{'do_' if number % 3 else '__x64_sys_'}{number * 7919:x}_all")
        )
    end = symbols[-1].address
    symbols += [Ksym(end, "t", "twice"), Ksym(end + 8, "t", LONG), Ksym(end + 16, "t", "twice"), Ksym(end + 32, "T", "_etext")]
    return symbols


def functions(symbols, bits=64):
    return sorted(
        CodeSymbol(symbol.address - BASES[bits] + PADDR, symbol.address, symbol.name)
        for symbol in symbols
        if symbol.type in "tTwW"
    )


def made_up_for(release, count=900):
    return made_up(release.bits, count, 20 if release.offsets == "percpu" else 0)


@pytest.mark.parametrize("name", RELEASES)
def test_the_functions_as_each_release_writes_them(name):
    release = RELEASES[name]
    symbols = made_up_for(release)
    with Kernel.from_bytes(kernel(symbols, release), name) as carrier:
        assert carrier.symbols() == functions(symbols, release.bits)
        assert carrier.symbol("startup_64") == (PADDR, BASES[release.bits], "startup_64")
        assert carrier.symbol(LONG).name == LONG
        assert carrier.symbol("twice") == next(symbol for symbol in carrier.symbols() if symbol.name == "twice")
        assert carrier.symbol("wice") is carrier.symbol("pcpu_1") is carrier.symbol("") is None


@pytest.mark.parametrize("count", [257, 258, 300, 511, 512, 513, 514, 767, 768, 769])
@pytest.mark.parametrize("name", ["6.1", "6.1-stable", "6.12", "7.0"])
def test_any_number_of_symbols_with_any_padding(name, count):
    symbols = made_up_for(RELEASES[name], count)
    assert len(symbols) == count
    assert code_symbols(BytesImage(kernel(symbols, RELEASES[name]))) == functions(symbols)


@pytest.mark.parametrize("name", ["6.1-stable", "6.12", "7.0"])
@pytest.mark.parametrize(
    "around",
    [DIGITS, b"\xff" * 13, bytes(4096), DIGITS * 50, bytes(range(256)) * 20, b"\0" + (1023).to_bytes(4, "little") * 999],
    ids=["digits", "ones", "zeros", "much", "bytes", "numbers"],
)
def test_whatever_lies_around_them(name, around):
    symbols = made_up_for(RELEASES[name])
    assert code_symbols(BytesImage(kernel(symbols, RELEASES[name], before=around, behind=around))) == functions(symbols)


def test_the_tables_may_lie_across_pieces_that_are_searched():
    symbols = made_up()
    for before in range((1 << 20) - 0x6000, (1 << 20) - 0x2000, 0x1388):
        data = kernel(symbols, RELEASES["6.12"], before=b"\x90" * before)
        assert code_symbols(BytesImage(data)) == functions(symbols)


def test_a_symbol_table_comes_first():
    load = load_segment()
    data = write_elf(64, PADDR, [load], {"own": load.paddr + 3})
    assert code_symbols(BytesImage(data)) == [(load.paddr + 3, load.paddr + 3, "own")]
    assert code_symbol(BytesImage(data), "own") == (load.paddr + 3, load.paddr + 3, "own")
    assert code_symbol(BytesImage(data), "wn") is None


@pytest.mark.parametrize(
    "broken",
    [
        lambda data: data.replace(DIGITS[2:], b"0" + DIGITS[3:]),  # two tokens in one
        lambda data: data.replace(DIGITS, DIGITS.replace(b"5", b"\x1b")),
        lambda data: data.replace((900).to_bytes(4, "little"), (901).to_bytes(4, "little")),
        lambda data: data.replace(BASES[64].to_bytes(8, "little"), (BASES[64] >> 1).to_bytes(8, "little")),
        lambda data: data.replace(BASES[64].to_bytes(8, "little"), (BASES[64] + (1 << 30)).to_bytes(8, "little")),
    ],
)
def test_tables_that_contradict_themselves_are_none(broken):
    data = kernel(made_up(), RELEASES["6.12"])
    at = data.index(b"\xf4" * 0x40) + 0x40  # behind the headers
    changed = data[:at] + broken(data[at:])
    assert changed != data
    assert code_symbols(BytesImage(changed)) == []


class Counted(BytesImage):
    """Counts the bytes that are read."""

    read_bytes = 0

    def read_into(self, offset, buffer):
        self.read_bytes += len(buffer)
        super().read_into(offset, buffer)


def looked_for(data):
    image = Counted(data)
    header = read_header(image)
    found = find_kallsyms(image, read_program_headers(image, header), header.bits)
    return found, image.read_bytes


def ascii_tokens(**others):
    """Each printable character as a token, and others instead of some."""
    table, index = token_table([others.get(chr(code), chr(code) if 32 < code < 127 else "") for code in range(256)])
    return table + bytes(-len(table) % 8) + index


@cache
def forged(name):
    return kernel(made_up_for(RELEASES[name], 600), RELEASES[name])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_mutated_kernel_gives_symbols_or_none(data):
    name = data.draw(st.sampled_from(sorted(RELEASES)))
    file = bytearray(forged(name))
    start = file.index(b"\xf4" * 0x40) + 0x40
    places = st.integers(start, len(file) - 1)
    for at, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6)):
        file[at] = value
    if data.draw(st.booleans()):
        at, size = data.draw(places), data.draw(st.integers(1, 64))
        file[at : at + size] = data.draw(st.binary(min_size=size, max_size=size))
        del file[len(forged(name)) :]
    found, read = looked_for(bytes(file))
    assert read < 3 << 20
    for address, text in found.functions() if found else ():
        assert text.isascii()
        assert 0 <= address < 1 << 64


def short_names(text=b"\x03tab"):
    """A million names, one of them other than the rest, with all that lies around them."""
    names = b"\x03tab" * (1 << 19) + text + b"\x03tab" * ((1 << 19) - 1)
    return (1 << 20).to_bytes(8, "little") + names + SHORT_MARKERS


SHORT_MARKERS = b"".join((1024 * number).to_bytes(4, "little") for number in range(4096))
ALIKE = {
    "digits": lambda: DIGITS * 60_000,
    "zeros": lambda: bytes(2 << 20) + ascii_tokens(),
    "token tables": lambda: ascii_tokens() * 2000,
    "markers": lambda: SHORT_MARKERS * 50 + ascii_tokens(),
    "numbers": lambda: (513).to_bytes(4, "little") * 400_000 + forged("6.1")[0x1000:],
    "an empty name": lambda: short_names(b"\0tab") + ascii_tokens() + bytes(8 << 20),
    "a long token": lambda: short_names() + ascii_tokens(t="t" * 60_000) + bytes(8 << 20),
}


@pytest.mark.parametrize("name", ALIKE)
def test_a_file_made_to_look_like_them_does_not_keep_us_busy(name):
    data = ALIKE[name]()
    found, read = looked_for(forge(64, None, (load_segment(data=data, memsz=len(data)),)))
    assert found is None
    assert read < 4 * len(data) + (32 << 20)


def test_a_million_symbols_are_not_too_many():
    data = short_names() + ascii_tokens() + bytes(8 << 20)
    found, _ = looked_for(forge(64, None, (load_segment(data=data, memsz=len(data)),)))
    assert len(found) == 1 << 20


KERNELS = ("vmlinux-6.1", "vmlinux-6.12", "vmlinux-generic", "vmlinuz-6.1")


@pytest.mark.parametrize("name", KERNELS)
def test_the_functions_of_a_stripped_kernel(name, guest_file):
    """What its headers and notes tell of some of them; all of them ascend and lie in its segments."""
    with Kernel.open(guest_file(name)) as linux:
        found = linux.symbols()
        assert found == sorted(found)
        assert len(found) > 40_000
        inside = {(s.paddr, s.end) for s in linux.segments}
        assert all(any(start <= symbol.paddr <= end for start, end in inside) for symbol in found[:: len(found) // 1000])
        one = {
            text: linux.symbol(text) for text in ("startup_64", "pvh_start_xen", "_text", "_stext", "_etext", "start_kernel")
        }
        assert one["startup_64"].paddr == linux.elf_entry
        assert one["pvh_start_xen"].paddr == linux.entry
        assert one["_text"].paddr == linux.segments[0].paddr
        assert one["_stext"].vaddr < one["_etext"].vaddr < one["start_kernel"].vaddr
        assert set(one.values()) <= set(found)


@pytest.mark.parametrize(
    ("file", "line", "source"),
    [
        (kernel(made_up(), RELEASES["6.12"]), "symbols:  kallsyms, 553 functions", {"kind": "kallsyms", "number": 553}),
        (
            write_elf(64, PADDR, [load_segment(), note_segment(entry_note())], {"one": PADDR, "two": PADDR}),
            "symbols:  symbol table, 2 symbols",
            {"kind": "symbol table", "number": 2},
        ),
        (forge(), None, None),
    ],
    ids=["kallsyms", "symbol table", "none"],
)
def test_an_inspection_says_where_symbols_are_from(file, line, source, tmp_path):
    (tmp_path / "kernel").write_bytes(file)
    found = inspect(tmp_path / "kernel")
    assert next((said for said in found.to_text().splitlines() if said.startswith("symbols")), None) == line
    assert found.to_json()["symbols"] == source
