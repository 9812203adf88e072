"""One file for each kind of result: its pictures and cautions on the page."""
