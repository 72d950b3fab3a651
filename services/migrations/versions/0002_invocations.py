"""Invocations, their logs, and the workers that run them. Owner: services/invocations.

Both tables that grow with history are partitioned by the UUIDv7 of the invocation,
which is to say by time; partitions are made ahead by the service
(services/invocations/partitions.py), and what has none goes to the default one.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE invocations (
  id uuid PRIMARY KEY,
  namespace text NOT NULL DEFAULT 'default',
  function_id uuid NOT NULL,
  function_name text NOT NULL,
  function_version integer NOT NULL,
  status text NOT NULL CHECK (status IN
    ('pending', 'running', 'completed', 'failed', 'timed_out', 'dead_lettered')),
  payload bytea NOT NULL,
  payload_type text NOT NULL,
  timeout_ms integer NOT NULL,
  labels jsonb NOT NULL DEFAULT '{}',
  attempt integer NOT NULL DEFAULT 0,
  attempt_limit integer NOT NULL,
  losses integer NOT NULL DEFAULT 0,
  due_at timestamptz NOT NULL,
  offered_at timestamptz,
  worker_id uuid,
  worker_boot uuid,
  grant_id uuid,
  result bytea,
  result_type text,
  error jsonb,
  metrics jsonb,
  runtime_image text,
  logs_truncated boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL,
  started_at timestamptz,
  completed_at timestamptz
) PARTITION BY RANGE (id);
COMMENT ON COLUMN invocations.offered_at IS 'When it was put into Redis; null: it is not there';
COMMENT ON COLUMN invocations.worker_boot IS 'The boot that holds the grant, until its verdict';

-- What the feeder looks for, in the order it takes it.
CREATE INDEX invocations_due ON invocations (due_at)
  WHERE status = 'pending' AND offered_at IS NULL;
-- What recovery compares with Redis.
CREATE INDEX invocations_offered ON invocations (offered_at)
  WHERE status = 'pending' AND offered_at IS NOT NULL;
-- What is lost with a boot.
CREATE INDEX invocations_held ON invocations (worker_boot) WHERE status = 'running';
CREATE INDEX invocations_by_function ON invocations (function_id, id DESC);
CREATE INDEX invocations_by_status ON invocations (status, id DESC);
CREATE TABLE invocations_default PARTITION OF invocations DEFAULT;

CREATE TABLE invocation_logs (
  invocation_id uuid NOT NULL,
  attempt integer NOT NULL,
  sequence integer NOT NULL,
  lines jsonb NOT NULL,
  PRIMARY KEY (invocation_id, attempt, sequence)
) PARTITION BY RANGE (invocation_id);
COMMENT ON COLUMN invocation_logs.lines IS 'Of each line [microseconds since 1970, stream, text]';
CREATE TABLE invocation_logs_default PARTITION OF invocation_logs DEFAULT;

CREATE TABLE workers (
  boot_id uuid PRIMARY KEY,
  worker_id uuid NOT NULL,
  beat bigint NOT NULL DEFAULT 1,
  description bytea NOT NULL,
  drain boolean NOT NULL DEFAULT false,
  seen_at timestamptz NOT NULL,
  lost_at timestamptz
);
COMMENT ON COLUMN workers.beat IS 'Raised by each heartbeat; one that stands still is a dead boot';
COMMENT ON COLUMN workers.description IS 'faas.v1.Worker, as it said of itself';
COMMENT ON COLUMN workers.drain IS 'What operators want of it';
CREATE INDEX workers_by_id ON workers (worker_id, seen_at DESC);
"""


def upgrade() -> None:
    """Apply."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take back."""
    op.execute("DROP TABLE workers, invocation_logs, invocations")
