"""Plans a run: what is sent, when and over which connections. Pure values."""
