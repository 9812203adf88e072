"""Layer by layer maps: of two models, or of one model with itself."""
