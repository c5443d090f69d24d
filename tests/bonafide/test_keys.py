"""The command that makes API keys: told once, kept as a hash, in force at once."""

from pathlib import Path

import pytest

from bonafide import cli
from services.gateway.api_keys import KeyRing
from services.gateway.quotas import Quota


def test_a_new_key_is_printed_once_and_opens_the_door_that_reads_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys"
    file.write_text("# callers")  # without an end of line
    ring = KeyRing(file)
    command = ["keys", "new", "acme", "--file", str(file)]
    assert cli.main([*command, "--requests-per-minute", "30", "--concurrent", "2"]) == 0
    text = capsys.readouterr().out.strip()
    found = ring.find(text)
    assert found is not None
    assert (found.name, found.quota) == ("acme", Quota(30, 2))
    assert text not in file.read_text()
    assert cli.main(command) == 0
    assert capsys.readouterr().out.strip() != text
    assert ring.find(text) is not None


def test_what_cannot_be_kept_is_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys"
    assert cli.main(["keys", "new", "no spaces", "--file", str(file)]) == 2
    file.write_text("not a key\n")
    assert cli.main(["keys", "new", "acme", "--file", str(file)]) == 2
    assert cli.main(["keys", "new", "acme", "--file", str(tmp_path / "absent" / "keys")]) == 2
    assert capsys.readouterr().out == ""
    assert file.read_text() == "not a key\n"
