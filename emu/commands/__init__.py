"""What each subcommand of `pvhboot` does, once its arguments are read."""
