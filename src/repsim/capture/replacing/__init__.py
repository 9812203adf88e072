"""Running a model with the output of a layer replaced."""
