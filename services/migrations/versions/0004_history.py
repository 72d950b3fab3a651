"""Indexes for filtering the history of invocations. Owner: services/invocations.

Each begins with what is asked for and ends with the id, in which a list is ordered.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE INDEX invocations_by_name ON invocations (function_name, id DESC);
-- Those below have only the rows that are worth looking for by them.
CREATE INDEX invocations_by_error ON invocations ((error ->> 'code'), id DESC)
  WHERE (error ->> 'code') IS NOT NULL;
CREATE INDEX invocations_retried ON invocations (id DESC) WHERE attempt > 1;
CREATE INDEX invocations_by_labels ON invocations USING gin (labels jsonb_path_ops)
  WHERE labels <> '{}';
"""


def upgrade() -> None:
    """Apply."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take back."""
    op.execute(
        "DROP INDEX invocations_by_name, invocations_by_error, invocations_retried,"
        " invocations_by_labels"
    )
