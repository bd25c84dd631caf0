"""ONNX operators in Paddle's, a module for each family."""
