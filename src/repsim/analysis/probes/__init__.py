"""Linear probes: which labels can be read from which token of which layer."""
