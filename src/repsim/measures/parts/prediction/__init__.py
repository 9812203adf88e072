"""Predictions of held-out samples, and their scores."""
