"""Quantization-aware training with distillation, only where post-training quantization misses the budget."""
