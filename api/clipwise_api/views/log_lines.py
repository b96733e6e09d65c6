"""Lines of a job's runner on the wire."""

from clipwise.store.tables import LogLineRow
from clipwise.wire.jobs import LogLine


def line_view(row: LogLineRow) -> LogLine:
    """Return a line; whoever may see it at all sees all of it."""
    return LogLine(
        id=row.id, stream=row.stream, line=row.line, attempt=row.attempt, created_at=row.created_at
    )
