"""Any input format to one normalised fp32 model, and samples to calibrate and evaluate with."""
