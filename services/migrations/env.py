"""Alembic's environment: run by `services.migrations.runner` with a connection given."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=None, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
