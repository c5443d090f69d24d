"""Whoever is woken finds a page that says what to do."""

from __future__ import annotations

import re

import pytest

from deploy.observe.files import RUNBOOKS
from tests.observe.expressions import alerts, runbook_pages, runbook_queries

SECTIONS = ["Symptom", "First look", "What to do", "Over when"]
PAGES = runbook_pages()


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {title: body.strip() for title, body in zip(parts[::2], parts[1::2], strict=True)}


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    assert PAGES.keys() == {rule["alert"] for rule in alerts()}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_to_look_at_what_to_do_and_when_it_is_over(name: str) -> None:
    text = PAGES[name]
    assert text.startswith(f"# {name}\n")
    found = sections(text)
    assert list(found) == SECTIONS
    assert all(found.values())
    assert runbook_queries(found["First look"])
    commands = re.findall(r"^```\n(.+?)^```$", found["First look"], flags=re.MULTILINE | re.DOTALL)
    assert commands


@pytest.mark.parametrize("name", PAGES)
def test_links_of_a_page_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[name]):
        file, _, anchor = target.partition("#")
        path = (RUNBOOKS / file).resolve()
        assert path.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
