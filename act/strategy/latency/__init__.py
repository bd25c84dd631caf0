"""How long a model takes on an engine: kernels as the engine fuses them, a table of measurements, a learned model."""
