"""What a run looks like to a person and to a machine; every figure is from `figures.result`."""
