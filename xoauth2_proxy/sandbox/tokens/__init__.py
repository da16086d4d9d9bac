"""The sandbox's tokens: signing, verifying, revoking, and the token endpoint that issues them."""
