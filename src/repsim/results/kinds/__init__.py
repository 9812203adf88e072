"""One file for each kind of result: what it contains, its headline numbers and its table."""
