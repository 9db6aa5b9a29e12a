"""Advice: edits of a network that the cost model predicts to be faster."""
