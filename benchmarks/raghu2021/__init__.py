"""Raghu et al. (2021) end to end: every figure and a table of what holds, from one command."""
