"""How the system is run."""
