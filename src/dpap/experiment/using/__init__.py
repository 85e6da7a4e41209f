"""What a run left, in use: scores, costs, and predictions of its compact network."""
