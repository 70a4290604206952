"""Run by alembic for each command; the connection, locked and in a transaction, comes from `_upgrade`."""

from alembic import context

from customersignal_ingest.adapters.outbound.sql.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # SQLite can, although alembic supposes that it can't.
)
with context.begin_transaction():
    context.run_migrations()
