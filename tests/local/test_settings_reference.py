"""docs/configuration.md is what the settings' own types say."""

from deploy.local.settings_reference import PAGE, render


def test_the_settings_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python -m deploy.local.settings_reference"
