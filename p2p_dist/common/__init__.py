"""What every other package may use: files, console, small records, Linux calls. It imports nothing else of this project."""
