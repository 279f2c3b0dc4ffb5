"""Anybody who has the link: a person is known by a cookie only, so a browser is one rater."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from epigone.raters.workforces import Arrival, Finish
from epigone.schema import Workforce


class Public:
    """The door of the open link: /in/public."""

    workforce: Workforce = "public"
    frame_ancestors: tuple[str, ...] = ()
    blind = True

    def arrive(self, query: Mapping[str, str]) -> Arrival:
        """A new person."""
        return Arrival(secrets.token_urlsafe(18))

    def finish(self, arrival: Arrival, answers: int, excluded: bool) -> Finish:
        """Thanks; there is nobody to report to."""
        return Finish("message", text="Your answers are saved. You can close this page.")
