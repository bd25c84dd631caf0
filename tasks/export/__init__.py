"""The deployable artefacts of every candidate, each checked against the simulated quantized model."""
