"""What a load costs on how many machines, and where it first breaks: measured, modelled, simulated."""
