"""The least that a submission can cost here: FastAPI, one INSERT, one commit (`python -m ...load.bare`).

The same server, threads, driver and database as the api's, and nothing of its work.
"""

import os
from typing import Any
from uuid import uuid4

import uvicorn
from fastapi import FastAPI
from sqlalchemy import JSON, Column, MetaData, String, Table, create_engine, insert

JOBS = Table("jobs", MetaData(), Column("id", String, primary_key=True), Column("spec", JSON))


def main() -> None:
    """Serve `POST /jobs`."""
    engine = create_engine(os.environ["BARE_DATABASE_URL"], pool_size=16, max_overflow=16)
    JOBS.metadata.create_all(engine)
    app = FastAPI()

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/jobs", status_code=201)
    def create(spec: dict[str, Any]) -> dict[str, Any]:
        job_id = uuid4().hex
        with engine.begin() as connection:
            connection.execute(insert(JOBS).values(id=job_id, spec=spec))
        return {"id": job_id, "spec": spec}

    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["BARE_PORT"]), log_config=None, access_log=False)


if __name__ == "__main__":
    main()
