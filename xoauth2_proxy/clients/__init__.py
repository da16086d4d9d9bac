"""Records which clients connected, what they did, and why they were turned away."""
