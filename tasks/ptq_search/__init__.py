"""Static post-training quantization: one calibration pass, thresholds by several rules, every trial kept."""
