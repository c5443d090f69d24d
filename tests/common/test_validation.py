"""The contract's rules turn bad messages away by the field, and say nothing of what was in it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message

from bonafide.v1 import analysis_pb2, audio_pb2, evidence_pb2, fusion_pb2, media_pb2, upload_pb2, visual_pb2
from services.common.errors import InvalidInputError
from services.common.validation import Rules

RULES = Rules()
UPLOAD = "0123456789abcdef" * 2


def options(**fields: Any) -> Message:
    return analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions(**fields))


BROKEN: list[tuple[Message, str, str]] = [
    (options(request_id="x" * 129), "INVALID_REQUEST_ID", "options.request_id"),
    (options(request_id="a\nb"), "INVALID_REQUEST_ID", "options.request_id"),
    (options(request_id="a\u00a0b"), "INVALID_REQUEST_ID", "options.request_id"),
    (options(file_name="x" * 256), "INVALID_FILE_NAME", "options.file_name"),
    (options(policy="x" * 65), "UNKNOWN_POLICY", "options.policy"),
    (options(branches=[1, 99]), "UNKNOWN_BRANCH", "options.branches"),
    (options(branches=[1] * 17), "UNKNOWN_BRANCH", "options.branches"),
    (options(priority=9), "UNKNOWN_PRIORITY", "options.priority"),
    (options(sha256="AB" * 32), "INVALID_HASH", "options.sha256"),
    (options(upload_id="../../etc/passwd"), "INVALID_UPLOAD_ID", "options.upload_id"),
    (analysis_pb2.AnalyzeUriRequest(uri="file:///etc/passwd"), "INVALID_URI", "uri"),
    (analysis_pb2.AnalyzeUriRequest(), "INVALID_URI", "uri"),
    (analysis_pb2.BatchAnalyzeRequest(), "INVALID_REQUEST", "items"),
    (
        analysis_pb2.BatchAnalyzeRequest(
            items=[{"uri": "https://a/b"}, {"uri": "s3://a/b", "options": {"request_id": "\t"}}]
        ),
        "INVALID_REQUEST_ID",
        "items[1].options.request_id",
    ),
    (analysis_pb2.BatchAnalyzeRequest(items=[{"uri": "https://a/b"}, {}]), "INVALID_SOURCE", "items[1]"),
    (analysis_pb2.AnalyzeUriRequest(uri="https://a/b", options={"upload_id": UPLOAD}), "INVALID_SOURCE", ""),
    (upload_pb2.CreateUploadRequest(), "EMPTY_INPUT", "size_bytes"),
    (upload_pb2.CreateUploadRequest(size_bytes=1, sha256="0" * 63), "INVALID_HASH", "sha256"),
    (upload_pb2.GetUploadRequest(upload_id=UPLOAD.upper()), "INVALID_UPLOAD_ID", "upload_id"),
    (upload_pb2.DeleteUploadRequest(), "INVALID_UPLOAD_ID", "upload_id"),
    (upload_pb2.SendChunksRequest(start={"upload_id": UPLOAD + "\n"}), "INVALID_UPLOAD_ID", "start.upload_id"),
    (visual_pb2.AnalyzeFacesRequest(branches=[0]), "INVALID_REQUEST", "branches[0]"),
    (audio_pb2.AnalyzeSpeechRequest(), "INVALID_REQUEST", "audio"),
    (fusion_pb2.FuseRequest(reports=[{}] * 17), "INVALID_REQUEST", "reports"),
]


@pytest.mark.parametrize(("message", "reason", "field"), BROKEN)
def test_a_broken_rule_names_its_field(message: Message, reason: str, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        RULES.check(message)
    assert refused.value.reason == reason
    assert [each.field for each in refused.value.violations] == [field]
    assert refused.value.message.startswith(f"{field}: " if field else "a")
    assert "passwd" not in refused.value.message
    assert "passwd" not in refused.value.violations[0].text


def test_all_fields_that_are_wrong_are_named() -> None:
    with pytest.raises(InvalidInputError) as refused:
        RULES.check(options(request_id="\n", sha256="no", policy="x" * 100))
    assert [each.field for each in refused.value.violations] == [
        "options.request_id",
        "options.policy",
        "options.sha256",
    ]


@pytest.mark.parametrize(
    "message",
    [
        options(),
        options(request_id="a b–ü🙂", file_name="../x", policy="strict", sha256="ab" * 32, upload_id=UPLOAD),
        options(branches=[value for value in evidence_pb2.Branch.values() if value]),
        *(options(priority=value) for value in analysis_pb2.Priority.values()),
        analysis_pb2.AnalyzeUriRequest(uri="s3://bucket/key"),
        analysis_pb2.ListModelsRequest(),
        upload_pb2.SendChunksRequest(start={"upload_id": UPLOAD, "offset": 1 << 40}),
        upload_pb2.CreateUploadRequest(size_bytes=1),
        visual_pb2.AnalyzeFacesRequest(survey=[media_pb2.VideoFrame(width=9000, height=9000, rgb=bytes(99))]),
    ],
)
def test_what_the_contract_allows_passes(message: Message) -> None:
    RULES.check(message)
