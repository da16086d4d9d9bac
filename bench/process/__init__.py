"""This process and those it starts: signals, event loop, open files, children."""
