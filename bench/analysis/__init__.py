"""Reading documents of runs: their form, assertions on them, differences between them."""
