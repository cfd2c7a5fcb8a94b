"""What people read of an evaluation: the page, MODEL.md, curves and pictures. Nothing here measures."""
