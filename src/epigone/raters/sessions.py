"""Signed cookies: who rates, who administers, and the token that every write has to bring."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.responses import Response

YEAR, WEEK, SHIFT = 365 * 86_400, 7 * 86_400, 12 * 3_600
# What browsers keep of one cookie.
_MOST = 3_800


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie says: its owner's data, and the token of its forms."""

    data: dict[str, Any]
    csrf: str

    def allows(self, token: str) -> bool:
        """Whether a write comes from a page that this cookie was given for."""
        return hmac.compare_digest(self.csrf.encode(), token.encode(errors="replace"))


class TooMuch(Exception):
    """More than a cookie can hold."""


@dataclass(frozen=True, slots=True)
class Cookie:
    """A kind of cookie: `name` and `seconds` of life; `secure` where the site has TLS.

    `database` tells databases apart: cookies know no ports, and secrets may be shared.
    """

    name: str
    secret: str
    seconds: int
    secure: bool
    database: str
    strict: bool = False

    @property
    def full_name(self) -> str:
        """The name with the prefix by which browsers refuse it from neighbouring sites."""
        name = f"{self.name}_{self.database[:8]}"
        return f"__Host-{name}" if self.secure else name

    def read(self, cookies: dict[str, str]) -> Session | None:
        """The session of a request; None where there is none, it is forged, or too old."""
        try:
            data = self._signer().loads(cookies.get(self.full_name, ""), max_age=self.seconds)
        except BadSignature:
            return None
        return Session(data["data"], data["csrf"])

    def write(
        self, response: Response, data: dict[str, Any], *, csrf: str = "", framed: bool = False
    ) -> None:
        """Set the cookie; `framed` for a page inside another site's, each site with its own."""
        signed = self._signer().dumps({"data": data, "csrf": csrf or secrets.token_urlsafe(18)})
        text = str(signed)
        if len(text) > _MOST:
            raise TooMuch
        same = "None; Partitioned" if framed else "Strict" if self.strict else "Lax"
        # A browser takes SameSite=None with Secure only.
        secure = "; Secure" if self.secure or framed else ""
        response.headers.append(
            "set-cookie",
            f"{self.full_name}={text}; Path=/; Max-Age={self.seconds}; HttpOnly; "
            f"SameSite={same}{secure}",
        )

    def clear(self, response: Response) -> None:
        """Take the cookie away."""
        secure = "; Secure" if self.secure else ""
        response.headers.append(
            "set-cookie", f"{self.full_name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax{secure}"
        )

    def _signer(self) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self.secret, salt=f"epigone {self.name} {self.database}")
