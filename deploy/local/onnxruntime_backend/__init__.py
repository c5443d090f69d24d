"""The Python-based backend that Triton loads under the name onnxruntime."""
