"""What the model is made of, what that costs, what can be quantized where; and the choice of strategy."""
