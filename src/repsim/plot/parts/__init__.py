"""What several pictures share: colours, ticks, tiles, lines."""
