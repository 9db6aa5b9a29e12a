"""Devices: hardware with its ceilings, each with its source, read from files."""
