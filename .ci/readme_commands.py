"""Prints the commands of README.md's first block of shell code: set-up and tests. All others are executed by a test."""

import re
import sys


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        block = re.search(r"^```sh\n(.*?)^```", file.read(), re.MULTILINE | re.DOTALL)
    if block is None:
        sys.exit("README.md shows no commands")
    print(block.group(1))


if __name__ == "__main__":
    main()
