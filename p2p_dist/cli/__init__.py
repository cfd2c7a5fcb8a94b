"""The commands, one file each: parse the command line, report errors, call the library. No logic of stages or jobs.

What a login node runs (submit, status, cancel, check) imports no torch and no numpy.
"""
