"""The rules of the product: pure, no input or output, same input, same output."""
