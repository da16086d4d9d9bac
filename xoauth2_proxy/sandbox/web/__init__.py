"""The sandbox over HTTP: received messages as pages and JSON."""
