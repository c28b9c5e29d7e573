"""A boot told as a story, in chapters."""
