"""Documents that cannot drift: commands exist, links lead somewhere, generated pages are fresh."""

from __future__ import annotations

import re
import shlex
import subprocess

import click
import pytest

from k2store.cli.group import k2
from tests.architecture.tree import ROOT, files, text
from tests.generate import KINDS, stale
from tests.run import CHECKS, WIRE_LINT

HOUSE_VERBS = {"test", "fuzz", "proto", "docs"}
DOCUMENTS = [path for path in files() if path.endswith(".md")]
FENCE = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def commands(path: str) -> list[list[str]]:
    """Every `k2` command line in the shell blocks of a document, without comments."""
    found = []
    for block in FENCE.findall(text(path)):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0] in {"k2", "./k2"}:
                found.append(words[1:])
    return found


def refusal(words: list[str]) -> str | None:
    """Why a command line cannot be run, judged by its verbs and options; None when it can."""
    command: click.Command = k2
    context = click.Context(k2, info_name="k2")
    rest = list(words)
    while rest:
        options = {name: each for each in command.params for name in each.opts}
        word = rest.pop(0)
        if word.startswith("-") and word not in {"-", "--"}:
            option = options.get(word.split("=")[0])
            if option is None and word not in context.help_option_names:
                return f"{command.name} has no option {word}"
            takes_value = isinstance(option, click.Option) and not option.is_flag
            if takes_value and "=" not in word and not option.count:  # type: ignore[union-attr]
                rest[:1] = []
        elif isinstance(command, click.Group):
            inner = command.get_command(context, word)
            if inner is None:
                return f"{command.name} has no verb {word}"
            command = inner
            context = click.Context(inner, context, info_name=word)
    return None


@pytest.mark.parametrize("path", DOCUMENTS)
def test_commands_in_documents_exist(path: str) -> None:
    """Each `k2` command line in a document names verbs and options that exist."""
    for words in commands(path):
        if not words or words[0] not in HOUSE_VERBS:
            assert refusal(words) is None, f"k2 {shlex.join(words)}: {refusal(words)}"


def test_a_wrong_command_is_noticed() -> None:
    """The check of commands refuses a verb and an option that do not exist."""
    assert refusal(["config", "shew"]) == "config has no verb shew"
    assert refusal(["config", "show", "--colour"]) == "show has no option --colour"
    assert refusal(["--set", "clock.bound=1ms", "config", "show", "--json"]) is None


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_lead_somewhere(path: str) -> None:
    """Each relative link of a document leads to a file or folder of the tree."""
    folder = (ROOT / path).parent
    broken = [
        target
        for target in LINK.findall(text(path))
        if "://" not in target
        and not target.startswith("#")
        and not (folder / target.split("#")[0]).exists()
    ]
    assert not broken, broken


@pytest.mark.parametrize("kind", KINDS)
def test_generated_files_are_fresh(kind: str) -> None:
    """Checked-in generated code and pages are what the generator makes now."""
    assert stale(kind) == [], f"run ./k2 {kind}"


def test_wire_passes_its_lint() -> None:
    """`buf lint` accepts the sources of the wire."""
    command = dict(CHECKS)[WIRE_LINT]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
