"""The way to the provider: `lease` an authenticated connection, `transact` on it."""
