"""Attention weights of an unmodified model, fused kernels included."""
