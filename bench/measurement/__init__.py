"""Records measurements: samples, histograms, the timeline, and the result computed from them."""
