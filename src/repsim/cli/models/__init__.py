"""Models by name: where they come from, their weights, their preparation, their blocks."""
