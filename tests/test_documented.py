"""The runner of the documentation finds what is untrue on a page, and nothing else."""

import pytest
from documented import difference_of, missing, untruths
from pages import page_of

TRUE = """
# A page

```sh
mkdir made && cd made
echo one > file
```

```
$ cat made/file
one
$ echo two \\
    three; echo four >&2
two three
four
$ cd made

$ cat file
one
```

<!-- status 3 -->
```
$ echo "12.5 ms    0x1f"; (exit 3)
12.5 ms    0x1f
```

<!-- printed above -->
```
12.5 … 0x1f
```

<!-- status 0 7 -->
<!-- numbers vary -->
```
$ seq 3; echo "x  17 ms 0xfe deadbeef01"
1
…
x 4.5 ms 0x1 cafebabe02
$ (exit 7)
```

<!-- file: sub/notes.ini -->
```ini
[a]
```

1. In a list:

    ```
    $ cat sub/notes.ini
    [a]
    ```

```python
from pathlib import Path

NAME = Path("sub/notes.ini").read_text()
open("left-open", "w").write(NAME)
```

```python
assert NAME == "[a]\\n"
print("seen")
```

<!-- printed above -->
```
seen
```

```python
def test_it():
    with open("sub/notes.ini") as file:
        assert file.read() == "[a]\\n"
```

```json
{}
```

<!-- no output -->
```
a ──► b
```

<!-- not run: it would take hours -->
```sh
false
```
"""

BLOCK = "```\n{}\n```\n"
FALSE = {
    "another line": (BLOCK.format("$ echo one\ntwo"), "-two\n+one"),
    "a line is missing": (BLOCK.format("$ seq 3\n1\n3"), "\n+2\n"),
    "a line more": (BLOCK.format("$ echo one\none\ntwo"), "\n-two"),
    "nothing was printed": (BLOCK.format("$ true\none"), "-one"),
    "something was printed": (BLOCK.format("$ echo one"), "+one"),
    "the first line is behind a gap": (BLOCK.format("$ seq 3\n2\n…"), "+1"),
    "all of it is behind a gap": (BLOCK.format("$ seq 2\n2\n…"), "+1"),
    "the last line is before a gap": (BLOCK.format("$ seq 3\n…\n2"), "+3"),
    "not in this order": (BLOCK.format("$ seq 9\n…\n5\n…\n3\n…"), "-3"),
    "another word in a gap's line": (BLOCK.format("$ echo one two three\none … four"), "-one … four"),
    "a number": (BLOCK.format("$ echo 12\n13"), "-13"),
    "a word among numbers that vary": ("<!-- numbers vary -->\n" + BLOCK.format("$ echo 12 s\n13 ms"), "-# ms\n+# s"),
    "a status": (BLOCK.format("$ false"), "status 1, not 0"),
    "another status": ("<!-- status 2 -->\n" + BLOCK.format("$ false"), "status 1, not 2"),
    "no failure": ("<!-- status 1 -->\n" + BLOCK.format("$ true"), "status 0, not 1"),
    "a status of many": ("<!-- status 0 0 -->\n" + BLOCK.format("$ true\n$ false"), "$ false\nstatus 1, not 0"),
    "too few statuses": ("<!-- status 0 0 -->\n" + BLOCK.format("$ true\n$ true\n$ true"), "3 commands, and 2 statuses"),
    "no end": (BLOCK.format("$ exit 0\n$ echo more\nmore"), "$ exit 0\ndid not end"),
    "a shell's failure": ("```sh\nfalse\ntrue\n```\n", "status 1"),
    "a pipe's failure": ("```sh\nfalse | true\n```\n", "status 1"),
    "an unknown variable": ("```sh\necho $NOWHERE_SET\n```\n", "NOWHERE_SET: unbound variable"),
    "an exception": ("```python\nopen('nowhere')\n```\n", "No such file or directory: 'nowhere'"),
    "its line": ("```python\na = 1\nassert a == 2\n```\n", 'File "page.md", line 3'),
    "a test that fails": ("```python\ndef test_it():\n    assert 1 == 2\n```\n", "1 failed"),
    "a test that is skipped": ("```python\nimport pytest\n\n\ndef test_it():\n    pytest.skip('so')\n```\n", "1 skipped"),
    "a test that is not found": ("```python\nclass It:\n    def test_it(self): ...\n```\n", "no tests ran"),
    "not printed above": (
        BLOCK.format("$ echo one\none") + "\n<!-- printed above -->\n" + BLOCK.format("two"),
        "not printed above",
    ),
    "bash": ("```bash\ntrue\n```\n", "a block of an unknown kind: bash"),
    "console": ("```console\n$ true\n```\n", "a block of an unknown kind: console"),
    "text": ("```text\none\n```\n", "a block of an unknown kind: text"),
    "tildes": ("~~~bash\ntrue\n~~~\n", "a block of an unknown kind: bash"),
    "a directive": ("```{note}\none\n```\n", "a block of an unknown kind: {note}"),
    "no command": (BLOCK.format("one"), "must say whether it was printed above, or is no output"),
    "an excuse without a reason": ("<!-- not run -->\n" + BLOCK.format("$ true"), "not understood: <!-- not run -->"),
    "an excuse without much of one": ("<!-- not run: slow -->\n" + BLOCK.format("$ true"), "not understood"),
    "a file elsewhere": ("<!-- file: ../x -->\n```ini\n```\n", "not understood: <!-- file: ../x -->"),
    "a status of words": ("<!-- status one -->\n" + BLOCK.format("$ true"), "not understood: <!-- status one -->"),
    "an unknown comment": ("<!-- statsu 1 -->\n" + BLOCK.format("$ false"), "not understood: <!-- statsu 1 -->"),
    "a comment that is not at its block": ("<!-- status 1 -->\n\n" + BLOCK.format("$ false"), "and no block follows"),
    "a comment for another kind": ("<!-- numbers vary -->\n```sh\ntrue\n```\n", "says nothing here: numbers vary"),
    "a block that does not end": ("```sh\ntrue\n", "the block does not end"),
}


@pytest.fixture
def told(tmp_path):
    """What the runner says of a page with that text."""

    def run(text):
        for name in ("home", "work"):
            (tmp_path / name).mkdir()
        (tmp_path / "page.md").write_text(text)
        return untruths(page_of(tmp_path / "page.md", "page.md"), tmp_path / "work", tmp_path / "home")

    return run


def test_a_true_page(told):
    assert told(TRUE) == []


@pytest.mark.parametrize(("text", "wrong"), FALSE.values(), ids=FALSE)
def test_a_false_page(told, text, wrong):
    words = "\n\n".join(told(text))
    assert words.startswith("page.md:")
    assert wrong in words


def test_all_is_told_and_where(told):
    text = BLOCK.format("$ false") + "\n" + BLOCK.format("$ true") + "\n" + BLOCK.format("$ echo one")
    assert [words.split(": ")[0] for words in told(text)] == ["page.md:1", "page.md:9"]


def test_excuses(tmp_path):
    (tmp_path / "page.md").write_text(TRUE)
    assert page_of(tmp_path / "page.md", "page.md").excuses == [
        f"page.md:{TRUE.splitlines().index('false')}: it would take hours"
    ]


def test_the_command_is_that_of_these_tests(told, monkeypatch):
    """The user's home, cache and settings are left alone."""
    monkeypatch.setenv("PVHBOOT_TEST_REQUIRE_ALL", "1")
    shown = "$ pvhboot boot --json > boot.json\n$ cd; ls -A\n.cache\n"
    shown += '$ echo "${PVHBOOT_TEST_REQUIRE_ALL-none} ${XDG_CACHE_HOME-none}"\nnone none'
    assert told(BLOCK.format(shown)) == []


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\n…\nb\n", "a\nb\n", True),
        ("a\n…\nb\n", "a\n1\n2\nb\n", True),
        ("…\nb\n…\n", "1\nb\nb\n2\n", True),
        ("…\na\nb\n…\n", "a\n1\na\nb\n", True),
        ("a\n…\na\n", "a\n", False),
        ("a … c (…)\n", "a b c (d)\n", True),
        ("a.c\n", "abc\n", False),
        ("a  \n\n", "a\n", True),
        ("", "", True),
    ],
)
def test_gaps(shown, printed, same):
    assert (difference_of(shown, printed) is None) is same


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("pvhboot boot --engine kvm", "no KVM"),
        ("pvhboot compare", "no QEMU"),
        ("pvhboot boot --firmware /usr/share/qemu/no-such.rom", "no /usr/share/qemu/no-such.rom"),
        ("pvhboot boot --append kvmless", None),
    ],
)
def test_what_a_page_needs(monkeypatch, text, needed):
    monkeypatch.setattr("documented.kvm_problem", lambda: "no KVM")
    monkeypatch.setattr("documented.qemu_problem", lambda: "no QEMU")
    assert (needed in missing(text)) if needed else not list(missing(text))
