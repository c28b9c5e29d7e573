"""Writes what is generated in these pages anew: `python docs/generate.py`. With --check it only says which pages are not as it
would write them; the exit status is 1 then."""

import sys
from pathlib import Path

from generators import api, assembly, cli, firmware, fixtures, memory
from generators.markdown import filled

HERE = Path(__file__).parent
GENERATORS = {**api.BLOCKS, **assembly.BLOCKS, **cli.BLOCKS, **firmware.BLOCKS, **fixtures.BLOCKS, **memory.BLOCKS}


def stale_pages() -> dict[Path, str]:
    """Each page that is not as it should be, and how it should be."""
    stale = {}
    for page in sorted(HERE.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (anew := filled(text, GENERATORS)) != text:
            stale[page] = anew
    return stale


def main() -> int:
    stale = stale_pages()
    check = sys.argv[1:] == ["--check"]
    for page, text in stale.items():
        print(f"{'stale' if check else 'written'}: {page.relative_to(HERE)}")
        if not check:
            page.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
