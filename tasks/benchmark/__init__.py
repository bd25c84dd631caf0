"""Measures every candidate on the engines that will run it, picks the winner, and writes the report."""
