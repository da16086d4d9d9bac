"""One running relay: builds its components, starts them, reloads them and stops them."""
