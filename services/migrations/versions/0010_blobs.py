"""Payloads and results that are too large for a row. Owner: services/invocations.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE invocations ADD COLUMN payload_blob jsonb, ADD COLUMN result_blob jsonb,
  ADD COLUMN verdict_seen_at timestamptz;
COMMENT ON COLUMN invocations.payload_blob IS
  'Null: payload holds it. Otherwise its key in the storage, size_bytes and sha256';
COMMENT ON COLUMN invocations.result_blob IS
  'Null: result holds it, or there is none. Otherwise as payload_blob';
COMMENT ON COLUMN invocations.verdict_seen_at IS
  'When its worker last said that it has ended and its large result is being stored';
"""


def upgrade() -> None:
    """Apply."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take back."""
    op.execute(
        "ALTER TABLE invocations DROP COLUMN payload_blob, DROP COLUMN result_blob,"
        " DROP COLUMN verdict_seen_at"
    )
