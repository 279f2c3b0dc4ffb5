"""Declare a study: its file, its expansion into cells and steps, and their identity."""
