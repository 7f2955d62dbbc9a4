"""The parameters of forty invented tools, in the shapes that calls of functions have in leaderboards and in agents.

Flat objects with enums and defaults, nested objects, arrays of both, bounds, lengths, patterns, formats, unions, free
objects and a recursive one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def _string(**keywords: Any) -> Schema:
    return {"type": "string", **keywords}


def _integer(**keywords: Any) -> Schema:
    return {"type": "integer", **keywords}


def _number(**keywords: Any) -> Schema:
    return {"type": "number", **keywords}


def _boolean(**keywords: Any) -> Schema:
    return {"type": "boolean", **keywords}


def _enum(*values: Any) -> Schema:
    return {"type": "string", "enum": list(values)}


def _list(items: Schema, **keywords: Any) -> Schema:
    return {"type": "array", "items": items, **keywords}


def _object(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


_POINT = _object(
    "latitude",
    "longitude",
    latitude=_number(minimum=-90, maximum=90),
    longitude=_number(minimum=-180, maximum=180),
)
_MONEY = _object("amount", "currency", amount=_number(minimum=0), currency=_string(pattern="^[A-Z]{3}$"))
_ADDRESS = _object(
    "street",
    "city",
    "country",
    street=_string(minLength=1, maxLength=120),
    city=_string(minLength=1, maxLength=80),
    postcode=_string(pattern="^[A-Z0-9 -]{3,10}$"),
    country=_string(pattern="^[A-Z]{2}$"),
)

TOOL_SCHEMAS: Mapping[str, Schema] = {
    "get_current_weather": _object(
        "location", location=_string(description="City and country."), unit=_enum("celsius", "fahrenheit")
    ),
    "get_forecast": _object(
        "place", "days", place=_POINT, days=_integer(minimum=1, maximum=14), hourly=_boolean(default=False)
    ),
    "triangle_area": _object("base", "height", base=_number(), height=_number(), unit=_string(default="cm")),
    "quadratic_roots": _object("a", "b", "c", a=_number(), b=_number(), c=_number()),
    "greatest_common_divisor": _object("numbers", numbers=_list(_integer(), minItems=2, maxItems=20)),
    "prime_factors": _object("number", number=_integer(minimum=2, maximum=10**12), with_multiplicity=_boolean()),
    "matrix_product": _object("left", "right", left=_list(_list(_number())), right=_list(_list(_number()))),
    "descriptive_statistics": _object(
        "values",
        "measures",
        values=_list(_number(), minItems=1),
        measures=_list(_enum("mean", "median", "mode", "variance", "range"), minItems=1, maxItems=5),
    ),
    "convert_currency": _object("amount", "target", amount=_MONEY, target=_string(pattern="^[A-Z]{3}$")),
    "compound_interest": _object(
        "principal",
        "rate",
        "years",
        principal=_number(minimum=0),
        rate=_number(minimum=0, maximum=1),
        years=_integer(minimum=1, maximum=100),
        compounding=_enum("yearly", "quarterly", "monthly", "daily"),
    ),
    "stock_price": _object(
        "symbol",
        symbol=_string(pattern=r"^[A-Z]{1,5}(\.[A-Z]{1,2})?$"),
        since=_string(format="date"),
        until=_string(format="date"),
        fields=_list(_enum("open", "high", "low", "close", "volume")),
    ),
    "place_order": _object(
        "symbol",
        "side",
        "quantity",
        symbol=_string(minLength=1, maxLength=8),
        side=_enum("buy", "sell"),
        quantity=_integer(minimum=1, maximum=100_000),
        kind=_enum("market", "limit", "stop"),
        limit_price={"anyOf": [_number(minimum=0), {"type": "null"}]},
    ),
    "search_flights": _object(
        "origin",
        "destination",
        "departure",
        origin=_string(pattern="^[A-Z]{3}$"),
        destination=_string(pattern="^[A-Z]{3}$"),
        departure=_string(format="date"),
        **{"return": _string(format="date")},
        passengers=_object("adults", adults=_integer(minimum=1, maximum=9), children=_integer(minimum=0, maximum=9)),
        cabin=_enum("economy", "premium", "business", "first"),
    ),
    "book_hotel": _object(
        "hotel",
        "arrival",
        "nights",
        "guests",
        hotel=_string(),
        arrival=_string(format="date"),
        nights=_integer(minimum=1, maximum=30),
        guests=_list(_object("name", name=_string(maxLength=60), age=_integer(minimum=0, maximum=120)), maxItems=8),
        wishes=_string(maxLength=500),
    ),
    "find_restaurants": _object(
        "near",
        near={"anyOf": [_POINT, _string()]},
        cuisines=_list(_string(maxLength=30), maxItems=5),
        price=_integer(enum=[1, 2, 3, 4]),
        open_now=_boolean(),
        radius_km=_number(exclusiveMinimum=0, maximum=50),
    ),
    "route": _object(
        "stops",
        stops=_list(_POINT, minItems=2, maxItems=10),
        by=_enum("car", "bike", "foot", "train"),
        tolls=_boolean(),
    ),
    "send_email": _object(
        "to",
        "subject",
        "body",
        to=_list(_string(format="email"), minItems=1, maxItems=20),
        cc=_list(_string(format="email")),
        subject=_string(maxLength=200),
        body=_string(maxLength=5000),
        priority=_enum("low", "normal", "high"),
    ),
    "create_event": _object(
        "title",
        "start",
        "end",
        title=_string(minLength=1, maxLength=120),
        start=_string(format="date-time"),
        end=_string(format="date-time"),
        attendees=_list(_object("email", email=_string(format="email"), optional=_boolean())),
        reminders=_list(_integer(minimum=0, maximum=10_080), maxItems=3),
        repeat={"anyOf": [{"type": "null"}, _object("every", every=_enum("day", "week", "month"), times=_integer())]},
    ),
    "set_timer": _object("seconds", seconds=_integer(minimum=1, maximum=86_400), label=_string(maxLength=40)),
    "add_contact": _object(
        "name",
        name=_string(minLength=1),
        phones=_list(_string(pattern=r"^\+[1-9][0-9]{6,14}$"), maxItems=4),
        address=_ADDRESS,
        birthday=_string(format="date"),
        notes=_string(),
    ),
    "ship_parcel": _object(
        "sender",
        "recipient",
        "weight_kg",
        sender=_ADDRESS,
        recipient=_ADDRESS,
        weight_kg=_number(minimum=0, maximum=70),
    ),
    "track_parcel": _object("code", code=_string(pattern="^[A-Z]{2}[0-9]{9}[A-Z]{2}$"), carrier=_string()),
    "play_music": _object(
        "query", query=_string(), shuffle=_boolean(), volume=_integer(minimum=0, maximum=100), device=_string()
    ),
    "create_playlist": _object(
        "name",
        "tracks",
        name=_string(maxLength=100),
        tracks=_list(_string(format="uuid"), maxItems=500),
        public=_boolean(),
    ),
    "control_light": _object(
        "room",
        room=_enum("kitchen", "bedroom", "bath", "hall", "living room"),
        on=_boolean(),
        brightness=_integer(minimum=0, maximum=100),
        color={"anyOf": [_string(pattern="^#[0-9a-f]{6}$"), _enum("warm", "cold", "daylight")]},
    ),
    "set_thermostat": _object(
        "celsius", celsius=_number(minimum=5, maximum=30, multipleOf=0.5), until=_string(format="time")
    ),
    "run_sql": _object(
        "database",
        "statement",
        database=_string(pattern="^[a-z_][a-z0-9_]{0,62}$"),
        statement=_string(maxLength=4000),
        parameters=_list({"type": ["string", "number", "boolean", "null"]}),
        timeout_s=_integer(minimum=1, maximum=600, default=30),
    ),
    "filter_rows": _object(
        "table",
        "where",
        table=_string(),
        where={"$ref": "#/$defs/condition"},
        limit=_integer(minimum=1, maximum=10_000),
    )
    | {
        "$defs": {
            "condition": {
                "anyOf": [
                    _object("column", "is", "value", column=_string(), **{"is": _enum("=", "<", ">")}, value=_number()),
                    _object("all", all=_list({"$ref": "#/$defs/condition"}, minItems=1)),
                    _object("any", any=_list({"$ref": "#/$defs/condition"}, minItems=1)),
                ]
            }
        }
    },
    "read_file": _object(
        "path", path=_string(minLength=1, maxLength=4096), first_line=_integer(minimum=1), last_line=_integer(minimum=1)
    ),
    "edit_file": _object(
        "path",
        "edits",
        path=_string(minLength=1, maxLength=4096),
        edits=_list(_object("old", "new", old=_string(minLength=1), new=_string(), all=_boolean()), minItems=1),
    ),
    "run_command": _object(
        "command",
        command=_string(minLength=1),
        directory=_string(),
        environment={"type": "object", "additionalProperties": _string()},
        timeout_s=_integer(minimum=1, maximum=3600),
    ),
    "http_request": _object(
        "method",
        "url",
        method=_enum("GET", "POST", "PUT", "PATCH", "DELETE"),
        url=_string(format="uri"),
        headers={"type": "object", "additionalProperties": _string(maxLength=1000)},
        body={"type": "object"},
    ),
    "create_issue": _object(
        "title",
        title=_string(minLength=1, maxLength=256),
        body=_string(),
        labels=_list(_enum("bug", "feature", "question", "docs"), maxItems=4),
        assignees=_list(_string(pattern="^[a-z0-9-]{1,39}$"), maxItems=10),
        milestone={"anyOf": [_integer(minimum=1), {"type": "null"}]},
    ),
    "search_web": _object(
        "query", query=_string(minLength=1, maxLength=400), count=_integer(minimum=1, maximum=50), site=_string()
    ),
    "translate": _object(
        "text", "target", text=_string(), source=_string(pattern="^[a-z]{2}$"), target=_string(pattern="^[a-z]{2}$")
    ),
    "generate_image": _object(
        "prompt",
        prompt=_string(minLength=1, maxLength=1000),
        size={"enum": ["512x512", "1024x1024", "1024x1792"]},
        steps=_integer(minimum=1, maximum=100),
        seed={"type": ["integer", "null"], "minimum": 0, "maximum": 2**32 - 1},
    ),
    "plan_meals": _object(
        "days",
        days=_list(
            _object(
                "date",
                "meals",
                date=_string(format="date"),
                meals=_list(_object("dish", dish=_string(), kcal=_integer(minimum=0, maximum=5000)), maxItems=5),
            ),
            minItems=1,
            maxItems=7,
        ),
        diet=_enum("any", "vegetarian", "vegan"),
        avoid=_list(_string(maxLength=40)),
    ),
    "log_workout": _object(
        "sport",
        "minutes",
        sport=_string(),
        minutes=_number(exclusiveMinimum=0, maximum=1440),
        laps=_list(_object("meters", "seconds", meters=_integer(minimum=0), seconds=_number(minimum=0))),
        heart_rate=_object(mean=_integer(minimum=20, maximum=250), most=_integer(minimum=20, maximum=250)),
    ),
    "store_memory": _object(
        "key", "value", key=_string(pattern="^[a-z][a-z0-9_.]{0,63}$"), value={}, expires=_string(format="date-time")
    ),
    "ask_user": _object(
        "question", question=_string(minLength=1, maxLength=300), options=_list(_string(maxLength=80), maxItems=6)
    ),
}
