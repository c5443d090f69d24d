"""From data to weights to the model repository, and the reports about them."""
