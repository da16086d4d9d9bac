"""Charts of a run as SVG, coloured by the page's style sheet, without scripts."""
