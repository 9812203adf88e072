"""What one representation does in the place of another: stitched models."""
