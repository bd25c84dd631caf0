"""Pruning: channels, heads and feed-forward width cut out, or weights set to zero, and training after it."""
