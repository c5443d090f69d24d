"""What every service shares, defined once."""
