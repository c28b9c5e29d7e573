"""What happened in a run, told as text and as JSON."""
