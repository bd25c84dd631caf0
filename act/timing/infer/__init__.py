"""Measures any model by itself, without a job: the latency tool that ACT's examples have as `infer.py`."""
