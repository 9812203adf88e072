"""The commands, one file each: its arguments, its options, and the task that it starts.

A new command is a new file here and a line in ``cli/_app.py``. These files are imported for every
``repsim --help``, so the computing part of a command is in ``tasks``, which is imported when the
command runs.
"""
