"""What torch's exporter writes beside a graph, taken out again: whose files it was traced in is nobody's business."""

from __future__ import annotations

from pathlib import Path

import onnx


def forget_traces(path: Path) -> None:
    """Remove source paths and notes of the exporter from an ONNX file; it computes what it did.

    Args:
        path: a file whose weights are inside it.
    """
    model = onnx.load(path)
    del model.metadata_props[:]
    for function in model.functions:
        _clear(function)
    _clear_graph(model.graph)
    onnx.save(model, path)


def _clear_graph(graph: onnx.GraphProto) -> None:
    _clear(graph)
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.doc_string = ""
            del value.metadata_props[:]


def _clear(holder: onnx.GraphProto | onnx.FunctionProto) -> None:
    holder.doc_string = ""
    del holder.metadata_props[:]
    for node in holder.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else []
            for graph in (*inner, *attribute.graphs):
                _clear_graph(graph)
