"""What several measures share: Grams, geometry, neighbours, folds."""
