"""Chat templates that a recipe can name, and what a template of the user's own must be."""

from __future__ import annotations

import re
from pathlib import Path

from epigone.errors import UnknownName, UserError

# Every turn ends with the base's own end token, because the turns' names are no tokens of most
# bases and none is added: a new token would be learnt from imitation data alone. Where the end
# token is <|im_end|>, this is ChatML to the letter. A base whose first token opens a turn, as
# SmolLM2's, must not get it twice.
CHATML = (
    "{% if bos_token and bos_token != '<|im_start|>' %}{{ bos_token }}{% endif %}"
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}{{ eos_token }}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BUILT_IN = {"chatml": CHATML}

_SUFFIX = ".jinja"
_LARGEST = 1 << 20
# Marks of what is supervised in other trainers; transformers knows the tag, jinja does not.
_GENERATION = re.compile(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}")


def template_text(name: str, folder: Path) -> str:
    """The text of a template: one of `BUILT_IN`, or a .jinja file by its path from `folder`.

    Raises UserError for a file that is not there or is no chat template.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not name.endswith(_SUFFIX):
        raise UnknownName("chat template", name, [*BUILT_IN, f"a {_SUFFIX} file"])
    try:
        path = folder / Path(name).expanduser()
        if path.stat().st_size > _LARGEST:
            raise UserError("too large for a chat template", value=name)
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError("not UTF-8", value=name) from None
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"the chat template cannot be read ({why})", value=name) from None
    _check(text, name)
    return text


def _check(text: str, name: str) -> None:
    # Only a study that brings a template waits for the import.
    import jinja2
    from jinja2 import meta

    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(
            _GENERATION.sub("", text)
        )
    except (jinja2.TemplateError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        at = f" in line {line}" if line else ""
        raise UserError(f"not a Jinja template{at}", value=f"{name}: {error}") from None
    if "messages" not in meta.find_undeclared_variables(tree):
        raise UserError(
            "not a chat template, it shows no messages", value=name, fix="loop over 'messages'"
        )
