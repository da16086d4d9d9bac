"""Runs one relay as several processes: a parent, and workers that share its port.

The parent opens the port, serves health and metrics, runs the sandbox and restarts workers that
end. Only workers handle mail. `upstream.worker_slots` shares a mailbox's limits among them.
"""
