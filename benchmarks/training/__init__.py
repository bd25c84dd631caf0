"""Training and pruning compared with what others make of the same model, samples and steps."""
