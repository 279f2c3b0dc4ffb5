"""What the doctor looks at on the network: the package index, the hub, endpoints."""

from __future__ import annotations

import ast
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from epigone.cli.checks import Check, Probe, refused
from epigone.errors import EndpointError, UnknownName, UserError
from epigone.models.endpoint import Endpoint, host, key_in_environment
from epigone.models.received import UNREADABLE, decoded
from epigone.runs.objects import Objects, StoreError

SECTION = "Network"
SECONDS = 8.0
TIMEOUT = 4.0
_LARGEST = 1 << 20
_HUB = "https://huggingface.co"
_PYPI = "https://pypi.org/simple"
_CHECK_NETWORK = "check the network, the proxy (HTTPS_PROXY) and the certificates (SSL_CERT_FILE)"

_STORE, _STORE_SECONDS = "store of runs", 20.0
_CHECK_STORE = (
    "check the URL, the network, and that the environment has what its package asks for, as "
    "AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL"
)
_CHECK_URL = "start it, or check its URL and the network"
_LATE = f"no answer in {SECONDS:.0f} s"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to a GET: its status, and the beginning of the content."""

    status: int
    content: bytes
    whole: bool = True


def probes() -> list[Probe]:
    """What to find out about the network."""
    return [
        _probe(Check(SECTION, "package index", "note", _LATE, _CHECK_NETWORK, "index"), _index),
        _probe(Check(SECTION, "model hub", "note", _LATE, _CHECK_NETWORK, "hub"), _hub),
    ]


def store_probe(url: str, offline: bool) -> Probe:
    """What to find out about the store at a URL; nothing of it where nobody may be asked."""
    late = Check(SECTION, _STORE, "problem", f"no answer in {_STORE_SECONDS:.0f} s", _CHECK_STORE)
    return Probe(lambda: store(url, offline), _STORE_SECONDS, late)


def store(url: str, offline: bool = False) -> list[Check]:
    """Whether the package is here that knows a store's URL, and whether the store can be read."""
    try:
        objects = Objects(url, patience=0.0)
        if offline:
            found = f"{url} was not asked, by --offline"
            return [Check(SECTION, _STORE, "note", found, "leave --offline out")]
        objects.look()
    except StoreError as error:
        # Its fix is what its package has said, and tells more than what went wrong.
        return [Check(SECTION, _STORE, "problem", f"{url}: {error.fix}", _CHECK_STORE)]
    except UserError as error:
        return [refused(SECTION, _STORE, error)]
    found = f"{url} can be read; the first run shows whether it can be written to"
    return [Check(SECTION, _STORE, "ok", found)]


def endpoint_probe(endpoint: Endpoint, what: str) -> Probe:
    """What to find out about an endpoint, which `what` names."""
    late = Check("Study", what, "problem", f"{host(endpoint)}: {_LATE}", _CHECK_URL)
    return _probe(late, lambda: look(endpoint, what))


def _probe(late: Check, find: Callable[[], Sequence[Check]]) -> Probe:
    return Probe(find, SECONDS, late)


def _ask(method: str, url: str, verify: str | bool = True) -> Answer:
    """What answers, without following it elsewhere. Raises httpx.HTTPError and OSError."""
    context = ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify
    with (
        httpx.Client(timeout=TIMEOUT, verify=context, follow_redirects=False) as client,
        client.stream(method, url) as response,
    ):
        content = bytearray()
        for part in response.iter_bytes():
            content += part
            if len(content) > _LARGEST:
                return Answer(response.status_code, bytes(content), whole=False)
        return Answer(response.status_code, bytes(content))


def _told(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return str(UserError(type(error).__name__, value=text or None))


def _index() -> list[Check]:
    name = "package index"
    settings = _pip()
    if settings is None:
        fix = "python -m ensurepip, or: uv pip install pip"
        found = "no pip, which fetches the catalogue's models and data"
        return [Check(SECTION, name, "note", found, fix, "index")]
    if settings.get("no-index", "0").lower() in ("1", "true", "yes", "on"):
        found = f"none by pip's settings; it looks into {settings.get('find-links', 'nothing')}"
        return [Check(SECTION, name, "ok", found)]
    url = settings.get("index-url", _PYPI).rstrip("/")
    if urlsplit(url).scheme == "file":
        return [Check(SECTION, name, "ok", f"a folder, {url}")]
    where = urlsplit(url).hostname or url
    try:
        status = _ask("HEAD", f"{url}/pip/", settings.get("cert") or True).status
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        found = f"{where} cannot be reached, from where the catalogue's models and data come: "
        return [Check(SECTION, name, "note", found + _told(error),
                      f"{_CHECK_NETWORK}, or pip's index-url", "index")]  # fmt: skip
    if status >= 400:
        found, fix = f"{where} answers HTTP {status}", "check pip's index-url, and its password"
        return [Check(SECTION, name, "note", found, fix, "index")]
    return [Check(SECTION, name, "ok", f"{where} answers")]


def _pip() -> dict[str, str] | None:
    """How pip downloads, by its own account: its files and its variables; None without a pip."""
    command = [sys.executable, "-P", "-m", "pip", "config", "list"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS - 2, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if "No module named pip" in done.stderr:
        return None
    found: dict[str, str] = {}
    # As pip does: its variables before what is said of `download`, and that before what is of all.
    for section in ("global", "download", ":env:"):
        for line in done.stdout.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                found[key.removeprefix(f"{section}.")] = _value(value)
    return found


def _value(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def _hub() -> list[Check]:
    name = "model hub"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        found = "off by HF_HUB_OFFLINE; what is in its cache can be used"
        return [Check(SECTION, name, "ok", found)]
    url = os.environ.get("HF_ENDPOINT") or _HUB
    where = urlsplit(url).hostname or "HF_ENDPOINT"
    try:
        status = _ask("HEAD", url).status
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        found = f"{where} cannot be reached; hf:… references need it: {_told(error)}"
        fix = f"{_CHECK_NETWORK}; or name local folders and catalogue names"
        return [Check(SECTION, name, "note", found, fix, "hub")]
    if status >= 400:
        found = f"{where} answers HTTP {status}; hf:… references need it"
        return [Check(SECTION, name, "note", found, "try again later", "hub")]
    return [Check(SECTION, name, "ok", f"{where} answers")]


def look(endpoint: Endpoint, what: str) -> list[Check]:
    """Whether an endpoint answers, asked for its models: without the key, and at no cost."""
    section, where = "Study", host(endpoint)
    try:
        answer = _ask("GET", f"{endpoint.url.rstrip('/')}/models")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        found = f"{where} cannot be reached: {_told(error)}"
        return [Check(section, what, "problem", found, _CHECK_URL)]
    if answer.status in (401, 403):
        return [Check(section, what, "ok", f"{where} answers, and wants a key")]
    if answer.status != 200 or not answer.whole:
        odd = f"HTTP {answer.status}" if answer.whole else "without end"
        fix = "check that the URL ends in /v1; some endpoints have no list of models"
        return [Check(section, what, "note", f"{where} answers {odd} to GET /models", fix)]
    try:
        names = [str(row["id"]) for row in decoded(answer.content, "")["data"]]
    except UNREADABLE:
        fix = "check that the URL ends in /v1"
        return [Check(section, what, "note", f"{where} answers no list of models", fix)]
    if endpoint.model not in names:
        unknown = UnknownName("model there", endpoint.model, names[:100])
        found = f"{where} answers, but: {UserError(unknown.what, value=endpoint.model)}"
        return [Check(section, what, "note", found, unknown.fix)]
    return [Check(section, what, "ok", f"{where} answers, and has the model")]


def key(endpoint: Endpoint, what: str) -> Check:
    """Whether the variable is set that holds an endpoint's key."""
    section, name = "Study", f"key of {what}"
    try:
        if key_in_environment(endpoint):
            return Check(section, name, "ok", f"${endpoint.key_env} is set")
    except EndpointError as error:
        fix = f"put the key into {endpoint.key_env} again, without quotes or line breaks"
        return Check(section, name, "problem", f"{error.what}: ${endpoint.key_env}", fix)
    if endpoint.url.startswith("https:"):
        fix = f"export {endpoint.key_env}=…; any text where its endpoint needs none"
        return Check(section, name, "problem", f"${endpoint.key_env} is not set", fix)
    found = f"${endpoint.key_env} is not set; an endpoint of your own may need none"
    return Check(section, name, "ok", found)
