"""Training of the audio branch: speech in, spoof_classifier out."""
