"""The HTTP API: the only way in for operators; the CLI speaks it too."""
