"""The audio service: speech found and scored."""
