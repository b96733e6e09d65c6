"""The database: tables, sessions and every query."""
