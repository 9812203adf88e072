"""Measures: two representations in, one number out."""

from repsim.measures._cka import cka, cka_from_gram
from repsim.measures._hsic import hsic

__all__ = ["cka", "cka_from_gram", "hsic"]
