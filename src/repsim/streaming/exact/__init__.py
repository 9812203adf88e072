"""Exact CKA of arrays that do not fit into memory: a plan, blocks of Grams, one matrix."""
