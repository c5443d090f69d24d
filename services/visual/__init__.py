"""The visual service: faces found, followed and scored."""
