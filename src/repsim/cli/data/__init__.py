"""Data by path: arrays in files, samples of a folder, batches in a seeded order."""
