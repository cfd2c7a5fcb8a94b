"""Apply a trained generator to songs: split a song into windows, generate, write a stem. Nothing here measures or trains."""
