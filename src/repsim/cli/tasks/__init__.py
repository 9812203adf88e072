"""What the commands do once their arguments are read; imported when a command runs."""
