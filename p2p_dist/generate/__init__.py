"""Apply a trained generator to songs: windows in, a stem out. Nothing here measures or trains."""
