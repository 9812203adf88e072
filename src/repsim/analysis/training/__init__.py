"""The same layers of one architecture: trained for longer, or on more data."""
