"""Which modules of a model are meant: names, patterns, types, and the repeated blocks."""
