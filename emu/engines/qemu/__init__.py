"""The engine that has QEMU run a boot."""
