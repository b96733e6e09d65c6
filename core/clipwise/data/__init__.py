"""Reading data: schema, ingestion, rows."""
