"""The work of the commands after their arguments are read; imported when a command runs."""
