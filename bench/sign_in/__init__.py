"""Signs a run's users in at an authorization server, as people do, and revokes their grants."""
