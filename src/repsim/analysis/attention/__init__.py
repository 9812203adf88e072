"""Attention heads: how far they look, and what the local ones represent."""
