"""Fusion: from the ledger of branches to one calibrated verdict."""
