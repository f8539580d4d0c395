"""Prints the JSON schema of the settings file, made from the settings' own models.

python docs/settings_schema.py > docs/settings.schema.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ensemble_kit.experiment import Experiment
from ensemble_kit.files import read_toml
from ensemble_kit.members import recipe
from ensemble_kit.members.member import Member


def schema_text() -> str:
    """The schema as JSON."""
    return json.dumps(settings_schema(), indent=1, sort_keys=True) + "\n"


def settings_schema() -> dict[str, Any]:
    """The schema of `ensemble-kit.toml`: member tables hold the fields of a Member, none required."""
    schema, member = Experiment.model_json_schema(), Member.model_json_schema()
    definitions = schema["$defs"] | member.pop("$defs")
    del member["required"]
    definitions["Member"] = member
    presets = read_toml(Path(recipe.__file__).with_name("recipes.toml"))
    definitions["Recipe"]["properties"]["preset"] = {"enum": sorted(presets), "type": "string"}
    # A class named by a number may be written as one.
    definitions["DataSettings"]["properties"]["classes"]["items"]["type"] = ["string", "integer"]
    schema["$defs"] = definitions
    schema["properties"]["member"]["additionalProperties"] = {"$ref": "#/$defs/Member"}
    for table in (schema, *definitions.values()):
        table.pop("description", None)  # docstrings of Python, not of the file
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_titles(schema)}


def _without_titles(value: Any) -> Any:
    """The same schema without pydantic's titles, which repeat the keys."""
    if isinstance(value, list):
        return [_without_titles(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _without_titles(one)
        for key, one in value.items()
        if not (key == "title" and isinstance(one, str))
    }


if __name__ == "__main__":
    print(schema_text(), end="")
