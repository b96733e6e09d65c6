from tests.core.client.conftest import job_document, server

__all__ = ["job_document", "server"]
