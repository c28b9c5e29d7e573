"""What a host does before the first instruction: reads the kernel, plans where everything goes, places it."""
