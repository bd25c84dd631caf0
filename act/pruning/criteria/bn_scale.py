"""The magnitude of gamma of the batch norm behind a channel (Liu et al., "Network slimming", 2017)."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def importance(channels: Floats, gamma: Floats | None) -> Floats | None:
    """Return the magnitude of each channel's gamma; None where no batch norm follows."""
    return None if gamma is None else np.abs(gamma)
