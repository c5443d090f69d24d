"""Writes ``values.schema.json``: types from the defaults of ``values.yaml``, settings from the services' own types.

Nothing that is not named is allowed, so a misspelt value fails before anything is installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter

from deploy.helm.documented_values import VALUES, Value, documented_values
from deploy.topology import COMPONENTS, Component
from services.common.rollout_plan import RolloutPlan
from services.common.settings import LogFormat

Schema = dict[str, Any]
DEFAULTS = ("triton", "defaults")
PROFILES = ("triton", "profiles")

CHART_SETS = frozenset(
    {
        *(
            "listen",
            "health_listen",
            "metrics_listen",
            "allow_plaintext",
            "model_repository",
            "drain_notice_seconds",
            "drain_seconds",
        ),
        *("engine", "triton_address", "triton_authorities", "triton_certificate", "triton_key"),
        *("triton_shared_regions", "rollout_file"),
        *("tls_certificate", "tls_key", "tls_authorities", "allowed_peers"),
        *("otlp_endpoint", "otlp_authorities", "trace_sample_ratio", "trace_slow_seconds", "log_format"),
        *("peer_authorities", "peer_certificate", "peer_key", "api_keys", "spool_directory"),
    }
)
"""Settings that the chart gives by itself, besides the peers' addresses."""

SECRETS = frozenset({"s3_access_key", "s3_secret_key"})
"""Settings whose values are secret: they would stand in the release and in the pod's environment."""

_STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}
_QUANTITY: Schema = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
_QUANTITIES: Schema = {"type": "object", "additionalProperties": {"anyOf": [_QUANTITY, {"type": "number"}]}}
_PODS: Schema = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+%$"}]}
_RESOURCES: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"requests": _QUANTITIES, "limits": _QUANTITIES},
}

_BY_KEY: dict[str, Schema] = {
    "annotations": _STRINGS,
    "callers": _OBJECTS,
    "dashboardLabels": _STRINGS,
    "cidrs": {"type": "array", "items": {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]+$"}},
    "digests": {
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {
            "^(gateway|visual|audio|fusion|triton-cpu|models|client)$": {
                "type": "string",
                "pattern": "^sha256:[0-9a-f]{64}$",
            }
        },
    },
    "dns": _OBJECTS,
    "dnsNames": {"type": "array", "items": {"type": "string"}},
    "endpoint": {"type": "string", "pattern": "^(https?://[^/:]+:[0-9]+)?$"},
    "engine": {"enum": ["nvidia", "cpu"]},
    "gatewayEgress": _OBJECTS,
    "labels": _STRINGS,
    "logFormat": {"enum": [form.value for form in LogFormat]},
    "maxSurge": _PODS,
    "maxUnavailable": _PODS,
    "kind": {"enum": ["Issuer", "ClusterIssuer"]},
    "models": {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
    "nodeSelector": _STRINGS,
    "podAnnotations": _STRINGS,
    "policies": {"type": "object", "additionalProperties": {"type": "object"}},
    "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "pullSecrets": _OBJECTS,
    "resources": _RESOURCES,
    "receivers": _OBJECTS,
    "scrapers": _OBJECTS,
    "secrets": _STRINGS,
    "sampleRatio": {"type": "number", "minimum": 0, "maximum": 1},
    "sharedMemory": _QUANTITY,
    "size": _QUANTITY,
    "slowSeconds": {"type": "number", "exclusiveMinimum": 0},
    "source": {"enum": ["image", "claim", "store"]},
    "temporarySize": _QUANTITY,
    "tolerations": _OBJECTS,
    "tritonEndpoint": {"type": "string", "pattern": "^(https?://[^/:]+:[0-9]+/.+)?$"},
    "type": {"enum": ["", "ClusterIP", "LoadBalancer", "NodePort"]},
    "values": {
        "type": "object",
        "additionalProperties": False,
        "properties": {mode: {"type": "integer", "maximum": 1_000_000_000} for mode in ("interactive", "backfill")},
    },
}
"""What a default alone does not tell, by the last key of the value."""

_BY_PLACE: dict[str, dict[str, list[str]]] = {
    "by": {
        "elsewhere": ["cpu", "pendingRequests", "queueTime"],
        **{component.name: ["cpu", "inFlight"] for component in COMPONENTS},
    },
    "mode": {"elsewhere": ["interactive", "backfill"], "tls": ["off", "certManager", "secrets"]},
}
"""Words that are allowed, by the last key and then by the first."""

_BY_TYPE: tuple[tuple[type, Schema], ...] = (
    (bool, {"type": "boolean"}),
    (int, {"type": "integer", "minimum": 0}),
    (str, {"type": "string"}),
)


def render() -> str:
    """The file."""
    values = documented_values(VALUES.read_text(encoding="utf-8"))
    schema: Schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the bonafide chart",
        **_tree(value for value in values if value.path[:2] not in {DEFAULTS, PROFILES}),
    }
    triton = schema["properties"]["triton"]["properties"]
    profile = _tree(
        Value(value.path[2:], value.default, value.meaning) for value in values if value.path[:2] == DEFAULTS
    )
    triton["defaults"] = {"$ref": "#/definitions/profile"}
    triton["profiles"] = {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$"},
        "additionalProperties": {"anyOf": [{"type": "null"}, {"$ref": "#/definitions/profile"}]},
    }
    schema["properties"]["global"] = {"type": "object", "description": "Helm's own; unused."}
    schema["definitions"] = {"profile": profile}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _tree(values: Iterable[Value]) -> Schema:
    """An object that allows these values and no others."""
    root: Schema = {"type": "object", "additionalProperties": False, "properties": {}}
    for value in values:
        place = root
        for key in value.path[:-1]:
            empty = {"type": "object", "additionalProperties": False, "properties": {}}
            place = place["properties"].setdefault(key, empty)
        place["properties"][value.path[-1]] = {"description": value.meaning, **_leaf(value)}
    return root


def _leaf(value: Value) -> Schema:
    key, default = value.path[-1], value.default
    if value.name == "models.rollout":
        return plan_schema()
    if key == "settings":
        return settings_schema(next(each for each in COMPONENTS if each.name == value.path[0]))
    if key in _BY_PLACE:
        return {"enum": _BY_PLACE[key].get(value.path[0], _BY_PLACE[key]["elsewhere"])}
    if key in _BY_KEY:
        return _BY_KEY[key]
    for kind, schema in _BY_TYPE:
        if isinstance(default, kind):
            return schema
    raise ValueError(f"{value.name}: say what its type is")


def settings_schema(component: Component) -> Schema:
    """The settings that an operator may give a service, as its pydantic type describes them."""
    whole = component.settings.model_json_schema()
    theirs = CHART_SETS | SECRETS | {name.lower() for name in component.peers}
    properties = {
        name: _resolved(described, whole.get("$defs", {}))
        for name, described in whole["properties"].items()
        if name not in theirs
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def plan_schema() -> Schema:
    """The rollout file, as the services read it."""
    whole = TypeAdapter(RolloutPlan).json_schema()
    resolved: Schema = _resolved({key: value for key, value in whole.items() if key != "$defs"}, whole["$defs"])
    return resolved


def _resolved(node: Any, definitions: Schema) -> Any:  # noqa: ANN401 - a JSON tree
    """A schema without references, titles and defaults."""
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [_resolved(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        node = {**definitions[node["$ref"].rpartition("/")[2]], **{k: v for k, v in node.items() if k != "$ref"}}
    return {
        key: {name: _resolved(each, definitions) for name, each in value.items()}
        if key in {"properties", "patternProperties"}
        else _resolved(value, definitions)
        for key, value in node.items()
        if key not in {"title", "default", "format"}
    }
