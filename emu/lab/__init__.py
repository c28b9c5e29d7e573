"""Broken firmwares, each with one classic mistake: exercises, and what the checks of pvhboot are tested with."""
