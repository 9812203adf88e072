"""One file for each kind of result: its contents, its headline numbers and its table."""
