"""The demo's world: a sample service, its users, real Envoys, and what the terminal shows."""
