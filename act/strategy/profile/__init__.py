"""Measuring what a latency model is learned from, on the target itself."""
