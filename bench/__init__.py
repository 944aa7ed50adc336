"""Measurements of the xDS server, and its fuzzing; not part of the wheel."""
