"""The parser of configurations and of the command, with messages in words."""

import re
from collections.abc import Iterator
from typing import NoReturn

from jsonargparse import ArgumentParser

from dpap.spelling import MEANT, nearest, suggestion

KINDS = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'NoneType'>": "null",
    "<class 'list'>": "a list",
    "<class 'dict'>": "keys and values",
}
"""What a field takes, as the parser writes it and in words."""
VALUE = re.compile(r'(?s)Parser key "(?P<key>[^"]*)":\s+Expected an? (?P<kind>.*)\. Got value: (?P<given>.*)')
UNION = re.compile(
    r'(?s)Parser key "(?P<key>[^"]*)":\s+Does not validate against any of the Union subtypes\s+'
    r"Subtypes: \[(?P<kind>.*?)\]\n.*Given value: (?P<given>.*)"
)
KIND = re.compile(r"typing\.Literal\[(.*?)\]|<class '\w+'>|[^,\s][^,]*")
OPTION = re.compile(r"(?:Group '(?P<group>.*)' does not accept o|does not accept o|O)ption '(?P<given>.*?)'")
CHOICE = re.compile(r"invalid choice: '(?P<given>.*?)' \(choose from (?P<known>.*)\)")
UNRECOGNIZED = "unrecognized arguments: "


class Parser(ArgumentParser):
    """A parser whose messages say what was expected in words, and what a mistyped name was meant to be."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends with the message, mended."""
        parser = getattr(ex, "subcommand_parser", None) or self
        super().error(in_words(message, list(_flags(parser))), ex)


def in_words(message: str, flags: list[str]) -> str:
    """A message of the parser, in words and with the nearest known name for a mistyped one.

    Args:
        message: of the parser.
        flags: that it has, without the dashes; keys in files have the same names.
    """
    if MEANT in message:
        return message  # the parser ends with its own error once more
    if found := VALUE.search(message) or UNION.search(message):
        kinds, choices = kinds_in_words(found["kind"])
        given = found["given"]
        return (
            f"{found['key']}: expected {kinds}{_as_in(kinds, given)}; got {given}{suggestion(given, choices)}"
        )
    if message.startswith(UNRECOGNIZED):
        return message + _meant(message.removeprefix(UNRECOGNIZED).split(), flags)
    if found := OPTION.search(message):
        group = f"{found['group']}." if found["group"] else ""
        return message + suggestion(group + found["given"], flags)
    if found := CHOICE.search(message):
        return message + suggestion(found["given"], re.findall(r"[^\s',]+", found["known"]))
    return message


def kinds_in_words(text: str) -> tuple[str, list[str]]:
    """What a field takes, in words; and the names that it may be one of."""
    words, choices = [], []
    for kind in KIND.finditer(text):
        if kind[1] is not None:
            choices = [each.strip("'\" ") for each in kind[1].split(",")]
            words.append(f"one of {', '.join(choices)}")
        else:
            words.append(KINDS.get(kind[0], kind[0]))
    return " or ".join(words), choices


def _as_in(kinds: str, given: str) -> str:
    """How a list or keys and values are written, as a shell takes them."""
    if kinds == KINDS["<class 'list'>"]:
        words = re.findall(r"[\w.+-]+", given)
        return f", as in '[{', '.join(words)}]'"
    return ", as in '{key: value}'" if kinds == KINDS["<class 'dict'>"] else ""


def _meant(words: list[str], flags: list[str]) -> str:
    """The nearest flags for those among the words."""
    given = [word.partition("=")[0] for word in words if word.startswith("-")]
    found = [(flag, nearest(flag.lstrip("-"), flags)) for flag in given]
    pairs = [f"--{name} for {flag}" for flag, name in found if name is not None]
    if len(given) == 1 and pairs:
        return f"{MEANT}{pairs[0].partition(' ')[0]}?"
    return f"{MEANT}{', '.join(pairs)}?" if pairs else ""


def _flags(parser: ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from (flag.lstrip("-") for flag in action.option_strings if flag.startswith("--"))
