"""What becomes of a boot when one thing is changed: an instruction of its firmware, or an answer of its host."""
