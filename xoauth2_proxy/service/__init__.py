"""Builds the components of one relay, starts, reloads and stops them."""
