"""The agent's settings."""

from __future__ import annotations

import pytest

from serving.enrich import config
from tests.serving.enrich.scripts import SECRET


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"URL": "localhost:8080"}, "VLCLIP_AGENT_URL: expected a URL such as http://host:port/v1"),
        (
            {"URL": f"http://me:{SECRET}@h/v1"},
            "VLCLIP_AGENT_URL: expected a URL such as http://host:port/v1, without a",
        ),
        (
            {"URL": f"http://h/v1?key={SECRET}"},
            "VLCLIP_AGENT_URL: expected a URL such as http://host:port/v1, without a",
        ),
        ({"URL": "http://h/v1"}, "VLCLIP_AGENT_MODEL: expected the name of a model at VLCLIP_AGENT_URL, got nothing"),
        ({"CALL_SECONDS": "soon"}, "VLCLIP_AGENT_CALL_SECONDS: expected seconds above 0, got 'soon'"),
        ({"ITEM_SECONDS": "inf"}, "VLCLIP_AGENT_ITEM_SECONDS: expected seconds above 0, got 'inf'"),
        ({"CONCURRENCY": "0"}, "VLCLIP_AGENT_CONCURRENCY: expected a number of 1 or more, got '0'"),
        ({"VISION": "yes"}, "VLCLIP_AGENT_VISION: expected 0 or 1, got 'yes'"),
        ({"OPTIONS": "temperature=0"}, "VLCLIP_AGENT_OPTIONS: expected a JSON object without messages"),
        ({"OPTIONS": '{"stream": true}'}, "VLCLIP_AGENT_OPTIONS: expected a JSON object without messages"),
        ({"PROMPTS": "/nowhere"}, "VLCLIP_AGENT_PROMPTS: expected a folder, got '/nowhere'"),
        ({"APIKEY": SECRET}, "VLCLIP_AGENT_APIKEY is unknown: expected one of VLCLIP_AGENT_URL, "),
    ],
)
def test_invalid_settings(environ: dict[str, str], message: str) -> None:
    given = {"VLCLIP_AGENT_URL": "http://h/v1", "VLCLIP_AGENT_KEY": SECRET}
    given |= {f"VLCLIP_AGENT_{name}": value for name, value in environ.items()}
    if "URL" not in environ:
        given["VLCLIP_AGENT_MODEL"] = "m"
    with pytest.raises(config.ConfigError) as caught:
        config.Config.from_environment(given)
    assert str(caught.value).startswith(message)
    assert SECRET not in str(caught.value)


def test_settings_from_the_environment() -> None:
    assert config.Config.from_environment({"PATH": "/bin", "VLCLIP_AGENT_MODEL": "m", "VLCLIP_AGENT_URL": " "}) is None
    given = {"URL": "https://llm.example:8/v1/", "MODEL": "m", "VISION": "1", "RETRIES": "0", "OPTIONS": "{}"}
    read = config.Config.from_environment({f"VLCLIP_AGENT_{name}": value for name, value in given.items()})
    assert read is not None
    assert (read.url, read.model, read.vision, read.retries) == ("https://llm.example:8/v1", "m", True, 0)
    assert read.host == "https://llm.example:8"


def test_every_setting_is_documented() -> None:
    settings = config.Config.__dataclass_fields__
    assert all(f"VLCLIP_AGENT_{name.upper()} " in str(config.__doc__) for name in settings)
