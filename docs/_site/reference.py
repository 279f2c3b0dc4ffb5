"""Reference pages made of the code: the study file from its schema, the verbs from themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
import yaml

from epigone.cli import app
from epigone.study.declare import Declaration

ROOT = Path(__file__).parents[2]
# Where examples of a key are looked for, the first of them first.
STUDIES = ("pocket", "local-teacher", "text2cypher", "false-promise")
PAGES = ("corpus", "asked-study", "recipes", "feedback", "benchmarks", "style", "judges", "rating",
         "reported", "local-imitation", "teachers")  # fmt: skip
TEMPLATE = "src/epigone/study/template.yaml"
# Studies that are no more than examples.
EVERY = "docs/_site/every-key.yaml"

STUDY = """\
# The study file

Made from the JSON Schema that checks study files, so that it lists every key there is. What a key
is called, and what may stand there, is checked before anything runs: an unknown key is refused
with its line, its column and the nearest known name.

An editor that knows the schema completes keys and marks mistakes while you write:

```sh
epigone study-schema > study.schema.json
```

With the YAML extension of VS Code, and everything else that speaks to yaml-language-server, the
study's first line is then `# yaml-language-server: $schema=study.schema.json`. The same file lies
[beside this page](study.schema.json).

`NAME` stands for a name that you choose, `[]` for an entry of a list. Amounts and other counts of
tokens may be written as `8000`, `8k` or `1.5m`, shares as `0.1` or `10%`. Paths start at the study
file's own folder.
"""

COMMANDS = """\
# The command line

Made from the verbs themselves, as `--help` is. `-h` and `--help` work everywhere; `--json` prints
one JSON document for other programs. Exit codes: 0 done, 1 a step failed, 2 a mistake of yours
(one line, no traceback), 130 ended by ^C, 143 by SIGTERM. `NO_COLOR` is honoured.
"""


def schema_text() -> str:
    """The JSON Schema, as `epigone study-schema` prints it."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | _schema(), indent=2) + "\n"


def _schema() -> dict[str, Any]:
    return Declaration.model_json_schema(by_alias=True)


def study_page() -> str:
    """Every key of the study file: type, default, meaning, an example from near by."""
    schema, examples = _schema(), dict(_examples())
    parts, places = [STUDY], dict(_places(schema))
    for name, paths in places.items():
        model = schema["$defs"][name] if name else schema
        parts.append(f"## {f'`{paths[0]}`' if name else 'Top level'} {{ #{_anchor(name)} }}\n")
        parts.append(_plain(model.get("description", "").split("\n\n")[0]) + "\n")
        if len(paths) > 1:
            parts.append("The same keys: " + ", ".join(f"`{p}`" for p in paths[1:]) + ".\n")
        needed = model.get("required", ())
        for key in model["properties"]:
            full = [f"{p}.{key}".lstrip(".") for p in paths]
            shown = next((examples[f] for f in full if f in examples), "")
            parts.append(_entry(schema, name, key, key in needed, shown))
    return "\n".join(parts)


def _places(schema: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Every model of the schema, the file's own as "", with the paths where it stands."""
    found: dict[str, list[str]] = {}

    def visit(name: str, path: str) -> None:
        found.setdefault(name, []).append(path)
        model = schema["$defs"][name] if name else schema
        for key, value in model["properties"].items():
            for target, suffix in _refs(value):
                visit(target, f"{path}.{key}{suffix}".lstrip("."))

    visit("", "")
    yield from found.items()


def _refs(value: Mapping[str, Any], suffix: str = "") -> Iterator[tuple[str, str]]:
    if "$ref" in value:
        yield value["$ref"].rpartition("/")[2], suffix
    for part in value.get("anyOf", ()):
        yield from _refs(part, suffix)
    if isinstance(value.get("items"), dict):
        yield from _refs(value["items"], suffix + "[]")
    if isinstance(value.get("additionalProperties"), dict):
        yield from _refs(value["additionalProperties"], suffix + ".NAME")


def _entry(schema: Mapping[str, Any], name: str, key: str, needed: bool, example: str) -> str:
    """One key of a model: what it takes, and what it means."""
    value = (schema["$defs"][name] if name else schema)["properties"][key]
    default = value.get("default")
    if needed:
        told = "**needed**"
    elif default is None or default in ({}, [], ""):
        told = "the preset's" if name == "Recipe" else "not set"
    else:
        told = f"default {_code(yaml_of(default))}"
    meaning = value.get("description", "")
    if not meaning:
        target = next(target for target, _ in _refs(value))
        meaning = schema["$defs"][target]["description"].split("\n\n")[0].removesuffix(".")
    if "properties" in value:
        meaning += ": " + ", ".join(_code(inner) for inner in value["properties"])
    kind = f'<span class="kind">{_kind(value)} · {told}</span>'
    head = f"`{key}` {kind} {{ #key-{_anchor(f'{name}-{key}')} }}"
    return f"{head}\n:   {_plain(meaning[:1].upper() + meaning[1:])}.{example}\n"


def _kind(value: Mapping[str, Any], many: bool = False) -> str:
    """The type of a value in words."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name.lower()}](#{_anchor(name)})"
    if "const" in value:
        return _code(yaml_of(value["const"]))
    if "enum" in value:
        return " or ".join(_code(yaml_of(v)) for v in value["enum"])
    if "anyOf" in value:
        kinds = [_kind(v, many) for v in value["anyOf"] if v.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    match value.get("type"):
        case "array":
            some = _kind(value["items"], True) if value.get("items") else "anything"
            return f"list of {some}"
        case "object" if isinstance(value.get("additionalProperties"), dict):
            return f"{_kind(value['additionalProperties'])} by name"
        case "object":
            return "mapping"
        case kind:
            word = {"string": "text", "integer": "whole number", "boolean": "true or false"}
            return word.get(str(kind), str(kind or "anything")) + _bounds(value)


def _bounds(value: Mapping[str, Any]) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to",
             "exclusiveMaximum": "below"}  # fmt: skip
    told = [
        f"{word} {f'{value[k]:,}'.removesuffix('.0')}" for k, word in words.items() if k in value
    ]
    return f" {' '.join(told)}" if told else ""


def yaml_of(value: Any) -> str:
    """A value in one line of YAML."""
    text = yaml.safe_dump(
        value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _examples() -> Iterator[tuple[str, str]]:
    """Where every key stands first in the studies and pages, as a sentence with a link."""
    seen: dict[str, str] = {}
    long: dict[str, str] = {}
    for link, title, document in _documents():
        for path, key, value in _walk(document, ""):
            told = f"{key}: {yaml_of(value)}"
            if value in ({}, []) or "STUDY_NAME" in told:
                continue
            if len(told) <= 90:
                seen.setdefault(path, f" Example: {_code(told)} ([{title}]({link}))")
            else:
                long.setdefault(path, f" Example: [{title}]({link})")
    yield from (long | seen).items()


def _documents() -> Iterator[tuple[str, str, Any]]:
    for name in STUDIES:
        path = f"studies/{name}.yaml"
        yield f"../{path}", name, yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    yield f"../{TEMPLATE}", "template", yaml.safe_load((ROOT / TEMPLATE).read_text("utf-8"))
    known = set(_schema()["properties"])
    for name in PAGES:
        page = (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
        title = page.splitlines()[0].removeprefix("# ")
        for block in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
            document = yaml.safe_load(block)
            if isinstance(document, dict) and set(document) <= known:
                yield f"{name}.md", title, document
    for document in yaml.safe_load_all((ROOT / EVERY).read_text(encoding="utf-8")):
        yield f"../{EVERY}", "every key", document


def _walk(value: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """Every key below a value: its path in the schema's words, its name, its value."""
    named = path in ("corpora", "feedback", "amounts", "teacher.reported", "sweep")
    if isinstance(value, dict):
        for key, inner in value.items():
            below = f"{path}.{'NAME' if named else key}".lstrip(".")
            if not named:
                yield below, key, inner
            yield from _walk(inner, below)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, f"{path}[]")


def commands_page() -> str:
    """Every verb with its usage, arguments and options."""
    return "\n".join([COMMANDS, *_commands(typer.main.get_command(app), None, "epigone", 1)])


def _commands(command: Any, parent: Any, name: str, depth: int) -> Iterator[str]:
    context = command.context_class(command, info_name=name, parent=parent)
    if parent is not None:
        path = context.command_path
        yield f"{'#' * depth} {_code(path)} {{ #{_anchor(path)} }}\n"
        texts = [" ".join(t.split()) for t in (command.help or "").split("\n\n")]
        examples = [line for t in texts if (line := t.partition("Example: ")[2])]
        yield from (f"{_plain(t.partition('Example: ')[0])}\n" for t in texts)
        if not hasattr(command, "commands"):
            pieces = [p.strip("{}") for p in command.collect_usage_pieces(context)]
            usage = " ".join([path, *pieces])
            yield f"```text\n{usage}\n```\n"
        yield from (f"```sh\n{line}\n```\n" for line in examples)
        if not hasattr(command, "commands"):
            yield from _options(command, context)
    for verb, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, context, verb, depth + 1)


def _options(command: Any, context: Any) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or "--help" in parameter.opts:
            continue
        names, told = record
        if not parameter.opts[0].startswith("-"):
            names = names.partition(" ")[0]
        for written, shown in (("<list[str]>", "<text>, several times"), (" range>", ">")):
            names = names.replace(written, shown)
        head, anchor = _code(names), _anchor(f"option {context.command_path} {parameter.name}")
        meaning, _, extra = told.partition("  [" if "  [" in told else "[")
        extra = extra.removesuffix("]").replace("x>=", "from ")
        kind = f' <span class="kind">{_plain(extra)}</span>' if extra else ""
        yield f"{head}{kind} {{ #{anchor} }}\n:   {_plain(meaning.strip())}\n"


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "top"


def _code(text: str) -> str:
    marks = "``" if "`" in text else "`"
    return f"{marks}{text}{marks}"


def _plain(text: str) -> str:
    """A text in which nothing is markup but code."""
    parts = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(p if i % 2 else re.sub(r"([\\*_\[\]<>{}|#])", r"\\\1", p)
                   for i, p in enumerate(parts))  # fmt: skip
