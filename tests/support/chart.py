"""The Helm chart of deploy/helm/relay: what its schema must say about the settings."""

import json
from pathlib import Path
from typing import Any

from relay.settings import SECTIONS, Settings

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "relay"
SCHEMA = CHART / "values.schema.json"
#: What pydantic says about a setting and values.schema.json says, too.
_KEPT = ("type", "description", "minimum", "maximum", "exclusiveMinimum", "pattern")


def settings_schema() -> dict[str, Any]:
    """Return the part of values.schema.json that describes the map `settings`: exactly the settings of relay."""
    described = Settings.model_json_schema()["properties"]
    names = [name for section in SECTIONS.values() for name in section]
    settings = {
        f"RELAY_{name.upper()}": {key: described[name][key] for key in _KEPT if key in described[name]}
        for name in names
    }
    settings["RELAY_PORT"]["minimum"] = 1  # the pod has to name it
    return {"type": "object", "additionalProperties": False, "properties": settings}


def with_settings(schema: str) -> str:
    """Return the text of a values.schema.json with the settings as they are now."""
    values = json.loads(schema)
    values["properties"]["settings"] = settings_schema()
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
