"""Alignments that are fitted on some samples and used on others."""
