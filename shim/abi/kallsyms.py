"""kallsyms: the symbols that a Linux kernel carries for itself, in .rodata.

Source: Linux scripts/kallsyms.c, write_src(), which writes the tables, and kernel/kallsyms.c, which reads them. They follow one
another, each aligned to a word, or to 4 bytes (7.0):

- to 6.3: offsets, relative_base, num_syms, names, markers, seqs_of_names (6.2, and stable kernels), token_table, token_index
- from 6.4 on: num_syms, names, markers, token_table, token_index, offsets, relative_base (not in 7.0), seqs_of_names
"""

from typing import Final

TOKENS: Final = 256  # token_table: strings with a NUL at the end; token_index: where each begins, 16 bits; one for each byte
TOKEN_TABLE_MAX: Final = 1 << 16  # bytes: token_index cannot tell more
TOKEN_INDEX_BYTES: Final = 2 * TOKENS

# names: of each symbol, by address, how many bytes follow, then these: each stands for its token. The first character is the
# type, as nm tells it.
BIG_NAME: Final = 0x80  # in the length: its upper bits are in a second byte
BIG_NAME_SHIFT: Final = 7  # bits, of the second byte
NAME_MAX: Final = 512  # KSYM_NAME_LEN: bytes, the type and a NUL among them
TEXT_TYPES: Final = "tTwW"  # symbols in a section of code; w: weak
MARKED: Final = 256  # symbols: markers tell where in names each of so many begins, 32 bits

# offsets: 32 bits for each symbol. With per-CPU symbols that count from 0 (x86-64 on SMP, to 6.14) a negative one means
# relative_base - 1 - offset, and any other is the address of a per-CPU symbol; else they count from relative_base. In 7.0 they
# count from their own place, and on 32-bit are the address.
OFFSET_BYTES: Final = 4
OFFSET_NEGATIVE: Final = 1 << 31
