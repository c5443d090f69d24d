"""Training of the frame classifier."""
