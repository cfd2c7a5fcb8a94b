"""A trained generator applied to songs: windows in, a stem out. Nothing here measures or trains."""
