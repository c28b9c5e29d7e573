"""Every structure and constant that firmware, loader and emulator share: each written once, with its source."""
