"""What was measured: samples, histograms, the timeline, and the result made of them."""
