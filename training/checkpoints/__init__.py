"""Published architectures, and the import of checkpoints trained elsewhere."""
