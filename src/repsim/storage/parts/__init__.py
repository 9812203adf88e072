"""A store that several ranks write: a group for each rank, read as one."""
