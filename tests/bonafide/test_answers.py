"""Everything the contract's Analysis says reaches the caller."""

from __future__ import annotations

from dataclasses import fields

from bonafide.analysis import Analysis
from bonafide.v1 import analysis_pb2


def test_every_field_of_the_contract_is_a_field_of_the_answer() -> None:
    assert [each.name for each in analysis_pb2.Analysis.DESCRIPTOR.fields] == [each.name for each in fields(Analysis)]
