"""Used by every other package: files, console, small records, Linux calls. It imports no other package of this project."""
