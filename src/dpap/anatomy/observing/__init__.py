"""What is observed of a network while it trains."""
