"""What a person runs: the command line, run directories, the display, pictures, benchmarks.

Stands on all of the library; nothing in the library knows of it.
"""
