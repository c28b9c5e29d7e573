"""Engines: each executes a Board and says how that ended; none judges what happened."""
