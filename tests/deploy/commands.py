"""Reads the commands and values files of a Markdown page: blocks marked ``sh`` and ``yaml``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import groupby

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_BETWEEN_COMMANDS = set(";|&()")
_WORDS_OF_THE_SHELL = {"do", "done", "then", "fi", "if", "while", "$"}


def blocks(page: str, language: str) -> list[str]:
    """The contents of fenced blocks of one language."""
    return [content for word, content in _FENCE.findall(page) if word == language]


def values_files(page: str) -> dict[str, str]:
    """YAML blocks whose first line names them: ``# platform.yaml: what it is``."""
    found = (re.match(r"# ([\w-]+\.yaml)\b", block) for block in blocks(page, "yaml"))
    return {name[1]: block for name, block in zip(found, blocks(page, "yaml"), strict=True) if name}


def commands(page: str) -> list[list[str]]:
    """Every simple command as its words, those inside of ``$(…)``, pipes and loops too."""
    lines = (line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines())
    return [words for line in lines for words in _simple(line)]


def _simple(line: str) -> Iterator[list[str]]:
    reader = shlex.shlex(line, posix=True, punctuation_chars=";|&()")
    reader.whitespace_split = True
    for between, group in groupby(reader, key=lambda word: not set(word) - _BETWEEN_COMMANDS):
        words = list(group)
        while words and (words[0] in _WORDS_OF_THE_SHELL or _ASSIGNMENT.match(words[0])):
            words = words[1:]
        if words and not between and words[0] != "for":
            yield words
