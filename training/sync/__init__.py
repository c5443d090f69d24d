"""Training of the audio-visual synchrony head."""
