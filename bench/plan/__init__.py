"""What is to be sent: when, how much and over which connections. Pure values."""
