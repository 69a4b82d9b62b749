"""Trained models in formats that others load. Each converter is imported when it is asked for: they take seconds."""
