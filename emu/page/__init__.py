"""A boot as one HTML file to be stepped through."""
