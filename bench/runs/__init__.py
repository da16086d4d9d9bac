"""Carries out runs: one or several in a row, in one process or several."""
