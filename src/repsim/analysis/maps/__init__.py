"""Layer by layer maps of CKA: two models, or one model after more and more training."""
