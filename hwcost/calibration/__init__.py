"""Calibration: measuring the ceilings of this machine with micro-benchmarks, which are called probes."""
