"""Attention heads: how far they look, and which layers the local ones resemble."""
