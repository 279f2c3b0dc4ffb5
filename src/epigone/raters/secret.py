"""The key that signs, and the administrator's token: from the environment, else an own file."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from epigone.errors import UserError
from epigone.files import aside_of

SECRET_ENV, ADMIN_ENV = "EPIGONE_RATERS_SECRET", "EPIGONE_RATERS_ADMIN"
_SHORTEST = 24


def secret(variable: str, file: Path | None) -> str:
    """The environment's value, else the file's, which is made where it is not there.

    Only its owner may read the file. Raises UserError for a secret that is too short to be one, for
    a file that others can read, and where there is neither.
    """
    value = os.environ.get(variable)
    where = f"${variable}"
    if value is None:
        if file is None:
            fix = f"set {variable} to 32 random characters, or --secret-file"
            raise UserError("no secret to sign with", value=where, fix=fix)
        where = str(file)
        value = _kept(file)
    if len(value) < _SHORTEST:
        # Never the value itself.
        raise UserError(f"a secret has at least {_SHORTEST} characters", value=where)
    return value


def _kept(file: Path) -> str:
    try:
        # Whole at once: another process that starts now must not read half a secret.
        aside = aside_of(file)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as out:
                out.write(secrets.token_urlsafe(32) + "\n")
                out.flush()
                os.fsync(out.fileno())
            try:
                os.link(aside, file)
            except FileExistsError:
                pass
            finally:
                aside.unlink()
        mode = file.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise UserError("others can read the secret", value=str(file), fix=f"chmod 600 {file}")
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"cannot keep the secret: {error.strerror}", value=str(file)) from None
