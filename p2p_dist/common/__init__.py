"""Used by every other package: files, console, records, Linux calls, plots. It imports no other package of the project."""
