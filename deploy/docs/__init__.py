"""The documentation: the site, its diagrams, and the pages that are made from the code."""
