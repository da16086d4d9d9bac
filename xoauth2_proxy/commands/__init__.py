"""What the command line can do beside serving: one module a sub-command, each with its `run`."""
