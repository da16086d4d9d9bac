"""The operator's side over HTTP: health and metrics."""
