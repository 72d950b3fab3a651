"""Sandboxes that are kept ready, and what kind a version runs in. Owner: services/functions.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

UPGRADE = """
ALTER TABLE functions ADD COLUMN min_warm integer;
COMMENT ON COLUMN functions.min_warm IS 'Null: none';
CREATE INDEX functions_warm ON functions (id) WHERE min_warm IS NOT NULL AND deleted_at IS NULL;

ALTER TABLE function_versions ADD COLUMN sandbox text CHECK (sandbox IN ('warm', 'one_shot'));
COMMENT ON COLUMN function_versions.sandbox IS 'Null: as workers are set';
"""


def upgrade() -> None:
    """Apply."""
    op.execute(UPGRADE)


def downgrade() -> None:
    """Take back."""
    op.execute(
        "DROP INDEX functions_warm; ALTER TABLE functions DROP COLUMN min_warm;"
        " ALTER TABLE function_versions DROP COLUMN sandbox"
    )
