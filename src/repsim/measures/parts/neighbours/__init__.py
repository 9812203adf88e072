"""Nearest neighbours: their lists, sets, weights and ranks."""
