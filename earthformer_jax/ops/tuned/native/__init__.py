"""Functions in C++ for CPUs, compiled on the machine that they run on.

They take the place of functions of `ops.tuned` where a C++ compiler is found; without
one nothing is lost but time. `library.available` says whether they are used.
"""
