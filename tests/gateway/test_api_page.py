"""docs/api.md names every call of the public services."""

from pathlib import Path

from bonafide.v1 import analysis_pb2, upload_pb2

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_every_call_is_on_the_page() -> None:
    services = [analysis_pb2.DESCRIPTOR.services_by_name, upload_pb2.DESCRIPTOR.services_by_name]
    calls = {
        f"`{service.name}.{call}`"
        for found in services
        for service in found.values()
        for call in service.methods_by_name
    }
    text = PAGE.read_text(encoding="utf-8")
    assert {call for call in calls if call not in text} == set()
    assert len(calls) == 8
