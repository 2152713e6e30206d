"""Commands and options that the documents name are those of the programs."""

import re
from pathlib import Path

import click
import pytest
from typer.main import get_command

from stillscan.app import cli
from stillscan.deploy.gateway import cli as gateway_cli
from tests.docs.test_links import DOCUMENTS, name

PROGRAMS = {"stillscan": get_command(cli.app), "stillscan-gateway": get_command(gateway_cli.app)}
# a command up to the end of its line, a comment, a pipe, or the backquote that ends it
USE = re.compile(
    r"(?:^|(?<!-n)[`$ ])(stillscan(?:-gateway)?) ([a-z]+(?![/\w])[^`\n#|]*)", re.MULTILINE
)


def uses(document: Path) -> list[tuple[str, list[str]]]:
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    code = re.findall(r"^```.*?^```|`[^`\n]+`", text, re.MULTILINE | re.DOTALL)
    return [(each[1], each[2].split()) for block in code for each in USE.finditer(block)]


def options(command: click.Command) -> set[str]:
    known = {each for parameter in command.params for each in parameter.opts}
    known |= {each for parameter in command.params for each in parameter.secondary_opts}
    return known | {"--help"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_and_options_exist(document):
    for program, (first, *rest) in uses(document):
        commands = PROGRAMS[program].commands
        assert first in commands, f"{program} {first}"
        named = {each.partition("=")[0] for each in rest if each.startswith("--")}
        assert named <= options(commands[first]), f"{program} {first}"


def test_every_command_of_the_programs_is_documented():
    named = {(program, words[0]) for document in DOCUMENTS for program, words in uses(document)}
    there = {(program, each) for program, group in PROGRAMS.items() for each in group.commands}
    assert not there - named
