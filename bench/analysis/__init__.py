"""Reads run documents: their format, assertions about them and the differences between them."""
