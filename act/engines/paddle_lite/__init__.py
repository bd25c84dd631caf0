"""Paddle Lite: its environment, what it wants of a program, what its files say.

`environment` and `kernels` are imported by Paddle Lite's own interpreter too, which has NumPy and `paddlelite` only.
"""
