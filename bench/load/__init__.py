"""The load: turns, messages, connections, and a watch over the generator itself."""
