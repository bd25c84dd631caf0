"""Comparisons with other systems, side by side in one run; not part of the tests. `make peers` installs the others."""
