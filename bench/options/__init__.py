"""From the command line or a scenario file to the plan of a run."""
