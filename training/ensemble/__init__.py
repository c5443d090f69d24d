"""Training of the networks that stand beside the frame classifier."""
