"""ONNX Runtime without its telemetry: import it from here.

From 1.29 on the official builds for Linux send events to their maker and keep an identifier and a database in the
home directory, unless ``ORT_DISABLE_TELEMETRY`` is set before the library is loaded (microsoft/onnxruntime#27379).
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
