"""Pruning: channels, heads and feed-forward width cut out of the model, or weights set to zero, and training after it."""
