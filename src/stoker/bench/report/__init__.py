"""Reports made from saved results alone: the terminal summary, the HTML page, the DLIO files."""
