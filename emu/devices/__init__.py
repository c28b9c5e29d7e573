"""Devices: each takes values and answers read(offset, size) and write(offset, size, value); none knows board, CPU or engine."""
