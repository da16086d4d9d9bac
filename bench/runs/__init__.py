"""One run from start to end, in one process or several, and several runs in a row."""
