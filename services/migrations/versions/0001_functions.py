"""Functions, their versions, and uploads. Owner: services/functions.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE functions (
  id uuid PRIMARY KEY,
  namespace text NOT NULL DEFAULT 'default',
  name text NOT NULL,
  description text NOT NULL DEFAULT '',
  labels jsonb NOT NULL DEFAULT '{}',
  version integer NOT NULL,
  etag uuid NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  deleted_at timestamptz
);
-- A name is free again once its function is deleted.
CREATE UNIQUE INDEX functions_name ON functions (namespace, name) WHERE deleted_at IS NULL;
CREATE INDEX functions_newest ON functions (created_at DESC, id DESC) WHERE deleted_at IS NULL;

CREATE TABLE function_versions (
  function_id uuid NOT NULL REFERENCES functions (id),
  version integer NOT NULL,
  runtime text NOT NULL,
  handler text NOT NULL,
  memory_mb integer NOT NULL,
  cpus double precision NOT NULL,
  timeout_ms integer NOT NULL,
  env jsonb NOT NULL DEFAULT '{}',
  code_format text NOT NULL,
  code_sha256 text NOT NULL,
  code_size_bytes bigint NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (function_id, version)
);

CREATE TABLE uploads (
  id uuid PRIMARY KEY,
  code_format text NOT NULL,
  sha256 text NOT NULL,
  size_bytes bigint NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL
);
"""


def upgrade() -> None:
    """Apply."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take back."""
    op.execute("DROP TABLE uploads, function_versions, functions")
