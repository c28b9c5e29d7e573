"""The 8254 interval timer of a PC, and port 0x61 beside it.

Source: Intel 8254 datasheet 231164, "Programming the 8254" (control word, read-back), "Mode definitions"; IBM PC AT Technical
Reference, "System timers" and "Speaker" (the channels, port 0x61); the clock is a third of the NTSC colour clock's fourth.
"""

from typing import Final

PIT_HZ: Final = 1_193_182
PIT_PORT: Final = 0x40  # of channel 0; the others follow, and the control word's port
PIT_PORTS: Final = 4
PIT_CHANNELS: Final = 3
PIT_CONTROL: Final = 3  # offset of that port
PIT_IRQ: Final = 0  # channel 0's output

# The control word.
PIT_BCD: Final = 1 << 0
PIT_MODE_SHIFT: Final = 1
PIT_MODE_MASK: Final = 7  # 6 and 7 are 2 and 3
PIT_ACCESS_SHIFT: Final = 4
PIT_ACCESS_MASK: Final = 3
PIT_ACCESS_LATCH: Final = 0
PIT_ACCESS_LOW: Final = 1
PIT_ACCESS_HIGH: Final = 2
PIT_ACCESS_BOTH: Final = 3  # the lower byte first
PIT_CHANNEL_SHIFT: Final = 6
PIT_READ_BACK: Final = 3  # in place of a channel: those in bits 1 to 3 are latched
PIT_READ_BACK_NO_COUNT: Final = 1 << 5
PIT_READ_BACK_NO_STATUS: Final = 1 << 4

# A latched status: access, mode and BCD as in the control word, and these.
PIT_STATUS_OUT: Final = 1 << 7
PIT_STATUS_NULL: Final = 1 << 6  # what was written does not count yet

PIT_ON_TERMINAL_COUNT: Final = 0
PIT_ONE_SHOT: Final = 1
PIT_RATE: Final = 2
PIT_SQUARE: Final = 3
PIT_SOFT_STROBE: Final = 4
PIT_HARD_STROBE: Final = 5

SYSTEM_PORT_B: Final = 0x61
PORT_B_GATE2: Final = 1 << 0
PORT_B_SPEAKER: Final = 1 << 1
PORT_B_WRITABLE: Final = 0x0F
PORT_B_REFRESH: Final = 1 << 4  # toggles with each refresh of the memory
PORT_B_OUT2: Final = 1 << 5
PORT_B_REFRESH_NS: Final = 15_085
