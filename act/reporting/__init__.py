"""Picks the winner from what was measured, and writes the deployed files and the report. Runs no engine."""
