"""The expression evaluator: literals, operators, precedence, and what it refuses."""

import contextlib
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvhboot.shim.expression import Expression, number, unescape


def value_of(text, **symbols):
    return Expression(text).evaluate(symbols.__getitem__)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("10", 10),
        ("0x10", 16),
        ("0XfF", 255),
        ("0b101", 5),
        ("18446744073709551615", (1 << 64) - 1),
        ("0xffffffffffffffff", (1 << 64) - 1),
    ],
)
def test_number(text, value):
    assert number(text) == value
    assert value_of(text) == value


@pytest.mark.parametrize("text", ["010", "00", "10h", "0FFh", "0x", "0b2", "1_000", "0x1_0", "0o7", "1e3", "٣", "", "-1", " 1"])
def test_no_number(text):
    with pytest.raises(ValueError, match="is no number: write 10, 0x0a or 0b1010"):
        number(text)


@pytest.mark.parametrize("text", ["0x10000000000000000", "18446744073709551616", "9" * 5000, "0x" + "f" * 5000])
def test_number_beyond_64_bits(text):
    with pytest.raises(ValueError, match="does not fit into 64 bits"):
        number(text)


# Each also compared with GNU as below.
EVALUATED = [
    ("1 + 2 * 3", 7),
    ("(1 + 2) * 3", 9),
    ("1 | 2 + 4", 7),
    ("6 & 3 ^ 1 | 8", 11),
    ("1 + 6 & 3", 3),
    ("2 * 3 + 1 << 2", 10),
    ("10 - 3 - 2", 5),
    ("100 / 7 / 2", 7),
    ("100 % 7", 2),
    ("-7 / 2", -3),
    ("7 / -2", -3),
    ("-7 % 2", -1),
    ("7 % -2", 1),
    ("~0", -1),
    ("~5 * 3", -18),
    ("- - 3", 3),
    ("-~-3", -2),
    ("+3", 3),
    ("1 << 63", 1 << 63),
    ("0x80 >> 3", 0x10),
    ("-8 >> 1", 0x7FFFFFFFFFFFFFFC),
    ("-1 >> 60", 15),
    ("~0xffffffffffffffff", 0),
    ("1 == 1", -1),
    ("1 == 2", 0),
    ("1 != 2", -1),
    ("2 > 1", -1),
    ("2 >= 3", 0),
    ("1 <= 1", -1),
    ("1 + 2 == 3", -1),
    ("1 < 2 < 3", -1),
    ("'A'", 65),
    ("'#' + 1", 36),
    (r"'\n'", 10),
    (r"'\\'", 92),
    ("((((7))))", 7),
]


@pytest.mark.parametrize(("text", "value"), EVALUATED)
def test_value(text, value):
    assert value_of(text) == value


@pytest.mark.skipif(shutil.which("as") is None or shutil.which("objcopy") is None, reason="no GNU binutils")
def test_values_are_those_of_gnu_as(tmp_path):
    source = "".join(f".quad {text}\n" for text, _ in EVALUATED)
    (tmp_path / "a.s").write_text(source)
    subprocess.run(["as", "--32", "-o", "a.o", "a.s"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "a.o", "a.bin"], cwd=tmp_path, check=True)
    data = (tmp_path / "a.bin").read_bytes()
    theirs = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
    assert theirs == [value & (1 << 64) - 1 for _, value in EVALUATED]


def test_symbols():
    assert value_of("A + B.c - $d + _e", A=1, **{"B.c": 10, "$d": 3, "_e": 100}) == 108
    assert value_of("1b - 1f + 0b", **{"1b": 30, "1f": 10, "0b": 2}) == 22
    with pytest.raises(KeyError):
        value_of("A")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an expression is missing"),
        ("   ", "an expression is missing"),
        ("1 +", "ends too early"),
        ("(1", r"a \) is missing"),
        ("1)", r"unexpected '\)'"),
        ("1 2", "unexpected '2'"),
        ("* 2", r"unexpected '\*'"),
        ("1 / 0", "division by zero"),
        ("1 % (2 - 2)", "division by zero"),
        ("1 << 64", "shift count 64"),
        ("1 >> -1", "shift count -1"),
        ("0xffffffffffffffff + 1", "64 bits"),
        ("1 << 63 << 1", "64 bits"),
        ("-0xffffffffffffffff", "64 bits"),
        ("1 ; 2", "cannot read ';"),
        ("1 && 2", "unexpected '&'"),
        ("!1", "cannot read '!1'"),
        ("'ab'", "cannot read"),
        ("'é'", "more than one byte"),
        (r"'\q'", "unknown escape"),
        ("[1]", "cannot read"),
        ("(" * 33 + "1" + ")" * 33, "inside each other"),
        ("(" * 5000, "inside each other"),
        ("-" * 5000 + "1", "inside each other"),
    ],
)
def test_refused(text, message):
    with pytest.raises(ValueError, match=message):
        value_of(text)


def test_unescape():
    assert unescape(r"a\n\r\t\0\\\'\"é") == b"a\n\r\t\0\\'\"\xc3\xa9"


@pytest.mark.parametrize("text", [r"\x41", "\\", r"\01", r"a\q"])
def test_unescape_refuses(text):
    with pytest.raises(ValueError, match="escape"):
        unescape(text)


_sums = st.recursive(
    st.integers(0, 10**6).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(("+", "-", "*", " + ", " - ", " * ")), inner).map("".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"- {text}"),
    ),
    max_leaves=8,
)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(_sums)
def test_sums_and_products_are_those_of_python(text):
    expected = eval(text)  # of our own digits, signs and parentheses
    try:
        value = value_of(text)
    except ValueError as error:
        value, problem = None, str(error)
    # Where a part of it is too large, or too deep, that is what it must say.
    assert value == expected if value is not None else "64 bits" in problem or "inside each other" in problem


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.text(alphabet="01789xabf'\"\\ +-*/%<>=!&|^~().$_é٣", max_size=30))
def test_any_text_is_a_value_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        assert isinstance(Expression(text).evaluate(lambda _: 1), int)
