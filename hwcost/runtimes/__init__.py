"""Runtimes: how each lowers a graph to the kernels it runs, and, where it is installed, how it runs and times them."""
