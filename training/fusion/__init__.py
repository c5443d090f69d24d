"""Training of the fusion heads and the calibration of the decision policies."""
