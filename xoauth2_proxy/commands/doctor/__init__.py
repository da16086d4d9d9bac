"""`xoauth2-proxy doctor`: examines one mailbox, step by step, in the order of a message's way."""
