"""Campaigns against the running system: faults, overload, hostile input, and a long soak."""
