"""Models by name: their sources, weights, preparation and blocks."""
