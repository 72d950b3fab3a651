"""Builds of functions that are compiled. Owner: services/functions.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE builds (
  id uuid PRIMARY KEY,
  function_id uuid NOT NULL,
  code_format text NOT NULL,
  code_sha256 text NOT NULL,
  runtime text NOT NULL,
  handler text NOT NULL,
  target text NOT NULL DEFAULT '',
  status text NOT NULL CHECK (status IN ('pending', 'building', 'ready', 'failed')),
  reason text NOT NULL DEFAULT '',
  due_at timestamptz NOT NULL,
  grant_id uuid,
  worker_id text NOT NULL DEFAULT '',
  losses integer NOT NULL DEFAULT 0,
  binary_sha256 text,
  created_at timestamptz NOT NULL,
  changed_at timestamptz NOT NULL,
  UNIQUE (function_id, code_sha256, runtime, handler, target)
);
COMMENT ON COLUMN builds.function_id IS 'Perhaps of a function that is still to be created';
COMMENT ON COLUMN builds.target IS 'What the binary fits; empty: the first worker decides';
COMMENT ON COLUMN builds.due_at IS 'Pending: not before; building: when its lease ends';
COMMENT ON COLUMN builds.grant_id IS 'Of the worker that has it or, when ready, that built it';
-- What may be taken, in the order it is.
CREATE INDEX builds_open ON builds (due_at) WHERE status IN ('pending', 'building');

-- What is there already is compiled once more, and then by nobody again.
INSERT INTO builds (id, function_id, code_format, code_sha256, runtime, handler, status,
                    due_at, created_at, changed_at)
SELECT gen_random_uuid(), function_id, min(code_format), code_sha256, runtime, handler, 'pending',
       now(), now(), now()
FROM function_versions JOIN functions ON functions.id = function_id
WHERE runtime = 'go' AND deleted_at IS NULL
GROUP BY function_id, code_sha256, runtime, handler;
"""


def upgrade() -> None:
    """Apply."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take back."""
    op.execute("DROP TABLE builds")
