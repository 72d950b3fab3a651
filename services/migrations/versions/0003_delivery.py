"""Attempts, retries, idempotency, lanes, and the guard of terminal states.

Owner of the columns of `functions`: services/functions; of all else:
services/invocations.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE functions
  ADD COLUMN retry_policy jsonb,
  ADD COLUMN max_age_ms bigint,
  ADD COLUMN max_concurrency integer;
COMMENT ON COLUMN functions.max_age_ms IS 'Null: the default of the deployment';
CREATE INDEX functions_limited ON functions (id) WHERE max_concurrency IS NOT NULL;

ALTER TABLE invocations DROP CONSTRAINT invocations_status_check;
ALTER TABLE invocations ADD CONSTRAINT invocations_status_check CHECK (status IN
  ('pending', 'running', 'completed', 'failed', 'timed_out', 'dead_lettered', 'cancelled'));
ALTER TABLE invocations
  ADD COLUMN request_id text,
  ADD COLUMN retry_policy jsonb,
  ADD COLUMN failures integer NOT NULL DEFAULT 0,
  ADD COLUMN declines integer NOT NULL DEFAULT 0,
  ADD COLUMN expires_at timestamptz NOT NULL DEFAULT 'infinity',
  ADD COLUMN laned boolean NOT NULL DEFAULT false,
  ADD COLUMN redrive_of uuid;
COMMENT ON COLUMN invocations.losses IS 'Starts that were lost with their worker';
COMMENT ON COLUMN invocations.failures IS 'Starts that the function itself failed';
COMMENT ON COLUMN invocations.declines IS 'Offers that no worker could run';
COMMENT ON COLUMN invocations.laned IS 'Its function is paused or limited: fed by its lane';

DROP INDEX invocations_due;
CREATE INDEX invocations_due ON invocations (due_at)
  WHERE status = 'pending' AND offered_at IS NULL AND NOT laned;
-- The same for each lane, and what a lane has under way.
CREATE INDEX invocations_lane_due ON invocations (function_id, due_at)
  WHERE status = 'pending' AND offered_at IS NULL AND laned;
CREATE INDEX invocations_lane_taken ON invocations (function_id)
  WHERE laned AND offered_at IS NOT NULL;

-- What was taken up again already.
CREATE INDEX invocations_redriven ON invocations (redrive_of) WHERE redrive_of IS NOT NULL;

CREATE TABLE lanes (
  function_id uuid PRIMARY KEY,
  max_concurrency integer,
  paused_at timestamptz
);
COMMENT ON TABLE lanes IS 'Functions whose invocations do not simply flow; others have no row';
COMMENT ON COLUMN lanes.max_concurrency IS 'Null: no limit';

CREATE TABLE attempts (
  invocation_id uuid NOT NULL,
  attempt integer NOT NULL,
  outcome text NOT NULL CHECK (outcome IN
    ('completed', 'failed', 'timed_out', 'cancelled', 'lost', 'abandoned')),
  worker_id uuid,
  worker_boot uuid,
  due_at timestamptz,
  offered_at timestamptz,
  started_at timestamptz,
  ended_at timestamptz NOT NULL,
  error jsonb,
  metrics jsonb,
  runtime_image text,
  PRIMARY KEY (invocation_id, attempt)
) PARTITION BY RANGE (invocation_id);
COMMENT ON TABLE attempts IS 'One row for each start that is over';
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

CREATE TABLE stale_verdicts (
  invocation_id uuid NOT NULL,
  attempt integer NOT NULL,
  worker_boot uuid NOT NULL,
  status text NOT NULL,
  result bytea,
  error jsonb,
  metrics jsonb,
  reported_at timestamptz NOT NULL,
  PRIMARY KEY (invocation_id, attempt, worker_boot)
) PARTITION BY RANGE (invocation_id);
COMMENT ON TABLE stale_verdicts IS 'What workers told of executions that were not theirs any more';
CREATE TABLE stale_verdicts_default PARTITION OF stale_verdicts DEFAULT;

CREATE TABLE request_ids (
  function_id uuid NOT NULL,
  request_id text NOT NULL,
  invocation_id uuid NOT NULL,
  digest bytea NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (function_id, request_id)
);
COMMENT ON COLUMN request_ids.digest IS 'Of what was asked for: another payload is another request';
CREATE INDEX request_ids_oldest ON request_ids (created_at);

CREATE TABLE guard_log (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  invocation_id uuid NOT NULL,
  status text NOT NULL,
  wanted text NOT NULL,
  query text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE guard_log IS 'Changes of ended invocations that the guard refused: must be empty';

CREATE FUNCTION invocations_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO guard_log (invocation_id, status, wanted, query)
    VALUES (OLD.id, OLD.status, NEW.status, left(current_query(), 1000));
  RAISE WARNING 'invocation % has ended as % and stays so', OLD.id, OLD.status;
  RETURN NULL;
END $$;
-- No statement of ours changes what has ended; should one try, nothing happens.
CREATE TRIGGER invocations_guard BEFORE UPDATE ON invocations FOR EACH ROW
  WHEN (OLD.status IN ('completed', 'failed', 'timed_out', 'dead_lettered', 'cancelled'))
  EXECUTE FUNCTION invocations_guard();
"""

DOWNGRADE = """
DROP TRIGGER invocations_guard ON invocations;
DROP FUNCTION invocations_guard;
DROP TABLE guard_log, request_ids, stale_verdicts, attempts, lanes;
DROP INDEX invocations_due, invocations_lane_due, invocations_lane_taken;
UPDATE invocations SET status = 'failed' WHERE status = 'cancelled';
ALTER TABLE invocations DROP CONSTRAINT invocations_status_check;
ALTER TABLE invocations ADD CONSTRAINT invocations_status_check CHECK (status IN
  ('pending', 'running', 'completed', 'failed', 'timed_out', 'dead_lettered'));
ALTER TABLE invocations DROP COLUMN request_id, DROP COLUMN retry_policy, DROP COLUMN failures,
  DROP COLUMN declines, DROP COLUMN expires_at, DROP COLUMN laned, DROP COLUMN redrive_of;
CREATE INDEX invocations_due ON invocations (due_at)
  WHERE status = 'pending' AND offered_at IS NULL;
DROP INDEX functions_limited;
ALTER TABLE functions DROP COLUMN retry_policy, DROP COLUMN max_age_ms,
  DROP COLUMN max_concurrency;
"""


def upgrade() -> None:
    """Apply."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take back."""
    op.execute(DOWNGRADE)
