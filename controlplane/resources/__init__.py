"""From traffic to xDS resources, as bytes: pure, deterministic, and small for a small change."""
