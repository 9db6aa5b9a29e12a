"""Reports: text tables for the terminal, plots, and the HTML page."""
