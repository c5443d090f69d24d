"""Models exchanged under load: real processes over tiny models in several versions."""
