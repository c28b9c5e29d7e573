"""Values as HTML for a notebook: each function gives a fragment that needs nothing else, neither a script nor a file."""
