"""`k2 chat`: talk to a model, on a terminal or through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from k2store.cli.verb import Verb, output
from k2store.errors import K2Error

if TYPE_CHECKING:
    from serving.cli.conversation import Ask, Conversation


@click.command("chat", cls=Verb)
@click.argument("words", nargs=-1, metavar="[QUESTION]...")
@click.option(
    "--url",
    default="http://127.0.0.1:8000/v1",
    show_default=True,
    envvar="OPENAI_BASE_URL",
    metavar="URL",
    help="Base of the API (OPENAI_BASE_URL).",
)
@click.option("--key", default="", envvar="OPENAI_API_KEY", help="Its key (OPENAI_API_KEY).")
@click.option("--model", metavar="NAME", help="The first one that the server has by default.")
@click.option("--system", default="", metavar="TEXT", help="What the model is told beforehand.")
@click.option("--max-tokens", type=int, help="Longest answer.")
@click.option(
    "--temperature",
    type=float,
    default=0.0,
    show_default=True,
    help="0 is always the likeliest; a small model talks nonsense at 1.",
)
@click.option("--seed", type=int, help="Equal seeds give equal answers.")
@click.option("--usage", is_flag=True, help="Tell after each answer what it took.")
def chat(
    *,
    words: tuple[str, ...],
    url: str,
    key: str,
    model: str | None,
    system: str,
    max_tokens: int | None,
    temperature: float,
    seed: int | None,
    usage: bool,
) -> None:
    """Talk to a model that is served over the OpenAI API, here or elsewhere.

    With a QUESTION, ask it and end. Without, each line that is read is a turn of one conversation; the end of
    the input ends it. Answers are printed as they come; with --json, one document for each turn.
    """
    from serving.cli.conversation import Ask, Conversation

    ask = Ask(max_tokens=max_tokens, temperature=temperature, seed=seed)
    conversation = Conversation(url, model, key=key, system=system)
    at_terminal = sys.stdin.isatty() and not words
    try:
        for text in [" ".join(words)] if words else _lines(prompts=at_terminal):
            try:
                _turn(conversation, text, ask, usage=usage)
            except K2Error as error:
                # At a terminal the conversation goes on; anywhere else somebody looks at the exit code.
                if not at_terminal:
                    raise
                output().note(error.message)
    finally:
        conversation.close()


def _turn(conversation: Conversation, text: str, ask: Ask, *, usage: bool) -> None:
    """Say one thing and print the answer."""
    pieces = conversation.turn(text, ask)
    if output().as_json:
        answer = "".join(pieces)
        took = conversation.usage
        document: dict[str, object] = {"answer": answer}
        if usage and took is not None:
            document |= {
                "prompt_tokens": took.prompt_tokens,
                "cached_tokens": took.cached_tokens,
                "completion_tokens": took.completion_tokens,
            }
        output().record(document, "")
        return
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()
    took = conversation.usage
    if usage and took is not None:
        output().note(
            f"{took.prompt_tokens} tokens read, {took.cached_tokens} of them from the cache; "
            f"{took.completion_tokens} written"
        )


def _lines(*, prompts: bool) -> Iterator[str]:
    """Lines of the input, empty ones left out."""
    while True:
        if prompts:
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()
