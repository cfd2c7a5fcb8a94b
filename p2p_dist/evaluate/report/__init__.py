"""Reports of an evaluation: the page, MODEL.md, curves and images. Nothing here measures."""
