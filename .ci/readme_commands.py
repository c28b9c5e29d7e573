"""Prints the commands that README.md shows: the first block of shell code (set-up and tests), or with --uses all others."""

import re
import sys


def main() -> None:
    uses = "--uses" in sys.argv
    with open(sys.argv[-1], encoding="utf-8") as file:
        blocks = re.findall(r"^```sh\n(.*?)^```", file.read(), re.MULTILINE | re.DOTALL)
    if not blocks[1:]:
        sys.exit("README.md shows no commands")
    print("\n".join(blocks[1:]) if uses else blocks[0])


if __name__ == "__main__":
    main()
