"""Schedules that invoke functions. Owner: services/invocations.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE schedules (
  id uuid PRIMARY KEY,
  namespace text NOT NULL DEFAULT 'default',
  function_id uuid NOT NULL,
  function_version integer NOT NULL,
  cron text NOT NULL,
  time_zone text NOT NULL,
  payload bytea NOT NULL,
  labels jsonb NOT NULL DEFAULT '{}',
  overlap text NOT NULL CHECK (overlap IN ('allow', 'skip', 'replace')),
  misfire text NOT NULL CHECK (misfire IN ('fire_once', 'skip', 'fire_all')),
  paused boolean NOT NULL,
  next_fire_at timestamptz,
  last_fire_at timestamptz,
  last_invocation_id uuid,
  skipped bigint NOT NULL DEFAULT 0,
  problem text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
);
COMMENT ON COLUMN schedules.next_fire_at IS 'Null: it is paused, or will never fire again';
COMMENT ON COLUMN schedules.skipped IS 'Moments that were passed over by its policies';
COMMENT ON COLUMN schedules.problem IS 'Why it could not fire the last time; empty: it could';
CREATE INDEX schedules_due ON schedules (next_fire_at) WHERE next_fire_at IS NOT NULL;
CREATE INDEX schedules_by_function ON schedules (function_id, id DESC);
"""


def upgrade() -> None:
    """Apply."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take back."""
    op.execute("DROP TABLE schedules")
