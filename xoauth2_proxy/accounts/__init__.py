"""The accounts of the configuration: their passwords, limits, servers and OAuth clients."""
