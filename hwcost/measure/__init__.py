"""Measuring networks and their kernels on this machine, and the values and files that hold measurements."""
