"""Residual connections: where a skip is added to a branch, and a model without one."""
