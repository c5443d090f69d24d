"""The real stack over tiny models in several versions, and a steady load on it."""

from __future__ import annotations
