"""Names in a TOML file that are wrong: which, of which route, and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.settings import load_settings

ROUTE = '[[route]]\npath = "/a"\nsubjects = ["repo.>"]\n'
NAME = "a name is a-z 0-9 - _, such as repo-events"

WRONG = {
    'NATSGATE_LISTEN = "127.0.0.1:1"': "NATSGATE_LISTEN: there is no such setting; did you mean listen?",
    'natsgate_listn = "127.0.0.1:1"': "natsgate_listn: there is no such setting; did you mean listen?",
    'LISTEN = "127.0.0.1:1"': "LISTEN: there is no such setting; did you mean listen?",
    "zzz = 1": "zzz: there is no such setting",
    f'{ROUTE}name = "mine"\nauthorise = "service"': (
        "route: mine: authorise: there is no such key; did you mean authorize?"
    ),
    f'{ROUTE}authorise = "service"\nname = "x y"': "route[0].authorise: there is no such key; did you mean authorize?",
    f'{ROUTE}name = "mine"\nzzz = 1': "route: mine: zzz: there is no such key",
    f'{ROUTE}name = "mine"\ntransports = ["sse", "tcp"]': 'route: mine: transports[1]: "tcp" is not known',
    '[[route]]\nname = "mine"\npath = "a"\nsubjects = ["repo.>"]': "route: mine: path 'a' must begin with /",
    f'{ROUTE}name = "x y"': f"route[0].name: {NAME}",
    f'{ROUTE}name = "-a"': f"route[0].name: {NAME}",
    f'{ROUTE}name = "{"a" * 64}"': f"route[0].name: {NAME}",
    f'{ROUTE}name = "a\\n"': f"route[0].name: {NAME}",
    f"{ROUTE}name = 1": 'route[0].name: "1" is no text',
    "route = [1]": "route[0]: it is no table",
}


@pytest.mark.parametrize("toml", WRONG)
def test_a_wrong_name_says_where_it_stands_and_what_was_meant(tmp_path: Path, toml: str) -> None:
    """A setting by its name in files, with or without the prefix of variables; a key of a route with the route's name,
    or its number where it has none."""
    config = tmp_path / "natsgate.toml"
    config.write_text(f"{toml}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings({"NATSGATE_AUTH": "none"}, config=config)
    (told,) = [each for each in caught.value.problems if each.startswith(f"{config}: {WRONG[toml]}")]
    assert ("did you mean" in told) == ("did you mean" in WRONG[toml])
    assert not [each for each in caught.value.problems if "pattern" in each]
