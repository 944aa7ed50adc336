"""Measurements of the xDS server and of the decision rule, and fuzzing; not part of the wheel."""
