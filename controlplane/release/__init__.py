"""What happens to a release: its state, the decision, and the traffic that follows from it."""
