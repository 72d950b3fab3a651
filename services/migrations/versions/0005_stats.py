"""What has ended, counted by the minute and by the hour. Owner: services/invocations.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE INDEX invocations_ended ON invocations (completed_at) WHERE completed_at IS NOT NULL;

CREATE TABLE invocation_stats (
  width_s integer NOT NULL CHECK (width_s IN (60, 3600)),
  starts_at timestamptz NOT NULL,
  function_id uuid NOT NULL,
  status text NOT NULL,
  count bigint NOT NULL,
  latencies jsonb NOT NULL,
  PRIMARY KEY (width_s, starts_at, function_id, status)
);
COMMENT ON TABLE invocation_stats IS 'Of those that ended within width_s from starts_at';
COMMENT ON COLUMN invocation_stats.latencies IS
  'By phase how many took how long: {phase: {bucket: count}}, bucket n from 0.1 ms * 2^(n/4) on';

CREATE TABLE invocation_stats_progress (counted_until timestamptz NOT NULL);
COMMENT ON COLUMN invocation_stats_progress.counted_until IS 'What ended before it is counted';
CREATE UNIQUE INDEX invocation_stats_progress_one ON invocation_stats_progress ((true));
INSERT INTO invocation_stats_progress
  SELECT date_trunc('minute', coalesce(min(completed_at), now())) FROM invocations;
"""


def upgrade() -> None:
    """Apply."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take back."""
    op.execute(
        "DROP TABLE invocation_stats_progress, invocation_stats; DROP INDEX invocations_ended"
    )
