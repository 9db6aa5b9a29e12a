"""Measuring a machine's ceilings, and what its data sheet promises."""
