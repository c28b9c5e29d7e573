"""A server for gdb: the CPU of an engine, driven and looked at by GDB's remote serial protocol."""
