"""Machine-readable codes in words, for people."""

from __future__ import annotations

from collections.abc import Mapping

from bonafide.analysis import Stage
from services.common.evidence import ReasonCode

REASONS: Mapping[ReasonCode, str] = {
    ReasonCode.NO_VIDEO: "no picture",
    ReasonCode.NO_AUDIO: "no sound",
    ReasonCode.NO_FACE: "no face found",
    ReasonCode.FACE_TOO_SMALL: "every face is too small to judge",
    ReasonCode.NO_SPEECH: "too little speech",
    ReasonCode.CLIP_TOO_SHORT: "too short for this branch",
    ReasonCode.BRANCH_TIMED_OUT: "did not answer in time",
    ReasonCode.BRANCH_UNAVAILABLE: "could not be reached",
    ReasonCode.BRANCH_ERROR: "failed unexpectedly",
    ReasonCode.MODEL_NOT_DEPLOYED: "its model is not deployed",
    ReasonCode.BRANCH_NOT_REQUESTED: "not asked for",
    ReasonCode.TOO_LITTLE_EVIDENCE: "too little evidence for a verdict",
    ReasonCode.WITHIN_ABSTAIN_BAND: "the probability is too balanced for a verdict",
    ReasonCode.TRACKS_SKIPPED: "there are more faces than are analysed",
    ReasonCode.PARTIAL_MEDIA: "the file is damaged or cut: only a part was analysed",
    ReasonCode.ABOVE_DEEPFAKE_THRESHOLD: "the probability reaches the policy's deepfake threshold",
    ReasonCode.BELOW_AUTHENTIC_THRESHOLD: "the probability is within the policy's authentic threshold",
    ReasonCode.EARLY_EXIT: "the patch gate was certain enough to spare the slower networks",
    ReasonCode.STILL_FACE: "the face is a still picture while speech is heard",
    ReasonCode.OUT_OF_SYNC: "the sound does not belong to the lips",
    ReasonCode.CIRCUIT_OPEN: "failed so often of late that it is left alone for a while",
}

STAGES: Mapping[Stage, str] = {
    Stage.RECEIVING: "receiving",
    Stage.QUEUED: "waiting",
    Stage.DECODING: "decoding",
    Stage.ANALYZING: "analysing",
    Stage.FUSING: "weighing",
    Stage.DONE: "done",
}
