"""Devices: hardware with its ceilings, read from files, each ceiling with its source."""
