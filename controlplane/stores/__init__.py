"""Where documents, releases, evidence and records are kept."""
