"""The temporal branch: forged faces, rows of texture and motion, the heads on them, and the served graph."""
