"""What alembic runs to bring a database up to date: on the connection that it is given."""

from __future__ import annotations

from alembic import context

from epigone.raters.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # The caller's transaction holds all of it.
    transactional_ddl=False,
)
context.run_migrations()
