"""Importers of measurements made elsewhere: one file for each format."""
