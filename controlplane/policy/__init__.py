"""What operators write: documents, segments, and how files become an accepted catalog."""
