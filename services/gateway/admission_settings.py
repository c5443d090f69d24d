"""Settings of the gateway's door: how much may come in, wait and run at one time, and what is remembered."""

from __future__ import annotations

import os

from pydantic import Field
from pydantic_settings import BaseSettings

from services.gateway.admission import AdmissionRules
from services.gateway.analysis import Priority
from services.gateway.answers import Answers, RequestIds
from services.gateway.breaker import BreakerRule
from services.gateway.upload_pace import UploadPace
from services.gateway.waiting_room import LaneRule


class AdmissionSettings(BaseSettings):
    """Bounds on what the gateway does at one time."""

    analyses: int = Field(
        0, ge=0, description="Analyses at one time; no more than the services behind take; 0 means one a processor."
    )
    uploads: int = Field(64, ge=1, description="Uploads that come in at one time.")
    calls_at_once: int = Field(1024, ge=1, description="Calls at one time in all; health checks are never refused.")
    waiting_interactive: int = Field(16, ge=1, description="Interactive requests that may wait for their turn.")
    waiting_batch: int = Field(64, ge=1, description="Batch requests that may wait for their turn.")
    waiting_backfill: int = Field(256, ge=1, description="Backfill requests that may wait for their turn.")
    weight_interactive: float = Field(16.0, gt=0, description="Share of turns of interactive requests.")
    weight_batch: float = Field(4.0, gt=0, description="Share of turns of batch requests.")
    weight_backfill: float = Field(1.0, gt=0, description="Share of turns of backfill requests; never starves.")
    memory_bytes: int = Field(
        8 << 30, ge=1 << 20, description="Memory for uploads (a quarter) and decoded clips (the rest), bytes."
    )
    spool_bytes: int = Field(8 << 30, ge=1, description="Room for all uploads, in memory and on disk, bytes.")
    upload_bytes_per_second: float = Field(
        16384.0, ge=0, description="Slowest upload, averaged over upload_window_seconds of waiting for the caller."
    )
    upload_window_seconds: float = Field(10.0, gt=0, description="How long an upload may be slow, seconds.")
    upload_idle_seconds: float = Field(20.0, gt=0, description="Longest wait for the next message, seconds.")
    answers_bytes: int = Field(
        64 << 20, ge=0, description="Memory for answers given before, bytes; 0 works everything out anew."
    )
    answers_seconds: float = Field(600.0, gt=0, description="How long an answer and a request id are kept, seconds.")
    request_ids: int = Field(20_000, ge=1, description="Request ids that are remembered.")
    breaker_window_seconds: float = Field(30.0, gt=0, description="Calls to a service that count, seconds back.")
    breaker_least_calls: int = Field(5, ge=1, description="Calls before a service can be found unwell.")
    breaker_failure_share: float = Field(
        0.5, gt=0, le=1, description="Share of failed calls from which a service is left alone."
    )
    breaker_pause_seconds: float = Field(5.0, gt=0, description="How long it is left alone at first, seconds.")
    fusion_hedge_seconds: float = Field(
        0.5, gt=0, description="Fusion is asked a second time when it has not answered for this long, seconds."
    )

    def rules(self, analysis_bytes: int, upload_memory_bytes: int) -> AdmissionRules:
        """How much may be under way."""
        return AdmissionRules(
            analyses=self.analyses or len(os.sched_getaffinity(0)),
            uploads=self.uploads,
            lanes={
                Priority.INTERACTIVE: LaneRule(self.weight_interactive, self.waiting_interactive, brisk=True),
                Priority.BATCH: LaneRule(self.weight_batch, self.waiting_batch),
                Priority.BACKFILL: LaneRule(self.weight_backfill, self.waiting_backfill),
            },
            analysis_bytes=analysis_bytes,
            upload_memory_bytes=upload_memory_bytes,
            memory_bytes=self.memory_bytes,
            spool_bytes=self.spool_bytes,
        )

    def upload_pace(self) -> UploadPace:
        """How fast an upload must be."""
        return UploadPace(self.upload_bytes_per_second, self.upload_window_seconds, self.upload_idle_seconds)

    def breaker_rule(self) -> BreakerRule:
        """When a service is left alone."""
        return BreakerRule(
            self.breaker_window_seconds,
            self.breaker_least_calls,
            self.breaker_failure_share,
            self.breaker_pause_seconds,
        )

    def open_answers(self) -> Answers:
        """An empty memory of answers."""
        return Answers(self.answers_bytes, self.answers_seconds)

    def open_request_ids(self) -> RequestIds:
        """An empty memory of request ids."""
        return RequestIds(self.request_ids, self.answers_seconds)
