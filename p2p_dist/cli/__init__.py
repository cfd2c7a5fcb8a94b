"""The commands, one file each: read a command line, say what is wrong with it, call the rest.

What a login node runs (submit, status, cancel, check) imports no torch and no numpy.
"""
