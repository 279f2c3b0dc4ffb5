"""How many slots of a comparison are held, which used to be counted for each rater anew."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the number, counted from the tasks."""
    op.add_column(
        "comparison", sa.Column("taken", sa.Integer(), nullable=False, server_default="0")
    )
    op.execute(
        "UPDATE comparison SET taken = (SELECT count(task.slot) FROM task"
        " WHERE task.comparison_id = comparison.id)"
    )
    columns = ["purpose", "a", "b", "taken", "id", "item"]
    op.create_index("ix_comparison_taken", "comparison", columns)
