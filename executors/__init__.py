"""Builds models in a sandbox to see what they are: one process per framework."""
