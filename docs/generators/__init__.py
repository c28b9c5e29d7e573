"""What in the pages is generated: tables that a program gets right from the sources, and a human does not."""
