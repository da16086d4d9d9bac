"""The sandbox's tokens: signing, verifying and revoking."""
