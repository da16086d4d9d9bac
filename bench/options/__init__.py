"""Builds the plan of a run from the command line or a scenario file."""
