"""What the other side counted, and how it compares with what was acknowledged."""
