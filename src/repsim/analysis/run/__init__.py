"""Code shared by all analyses: driving models over data, and the provenance of results."""
