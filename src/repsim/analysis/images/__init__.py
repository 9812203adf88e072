"""Places in the image: receptive fields, and which patch a token represents."""
