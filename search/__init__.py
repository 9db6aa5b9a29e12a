"""Optuna searches that know what an architecture costs before they train it."""
