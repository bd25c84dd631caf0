"""Pruning criteria: how much each output channel of a layer matters, by the layer alone.

A criterion is a module of this package (or an entry point, see `act/registry.py`) with `importance(channels, gamma)`:
`channels` has the weights of each channel, float64 [channels, values], and `gamma` the scale of the batch norm that was
folded into the layer, float64 [channels], or None. It returns float64 [channels], the larger the more important, or
None where it cannot tell; then `DEFAULT` does.
"""

DEFAULT = "l1_norm"
