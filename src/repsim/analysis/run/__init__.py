"""What every analysis shares: driving models over data, and what a result says of its origin."""
