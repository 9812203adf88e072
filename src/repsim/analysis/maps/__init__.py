"""Layer by layer maps of CKA: of two models, or of one model trained on more and more data."""
