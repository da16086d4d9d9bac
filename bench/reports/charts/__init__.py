"""Pictures of a run as SVG: drawn here, coloured by the page's style sheet, no script."""
