"""Reports for people and programs; every figure comes from `measurement.result`."""
