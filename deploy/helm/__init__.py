"""What writes and checks the chart in ``bonafide/``."""
