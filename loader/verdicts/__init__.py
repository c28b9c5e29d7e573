"""What other loaders make of a file: a model of each, as a list of its rules in the order in which it applies them."""
