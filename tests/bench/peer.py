"""The same handler without any of this: FastAPI on uvicorn, one process, no record."""

from typing import Any

from fastapi import FastAPI

app = FastAPI()


@app.post("/invoke")
async def invoke(request: dict[str, Any]) -> dict[str, Any]:
    """What the benchmark's function does: it answers its payload."""
    return {"status": "COMPLETED", "result": handler(request["payload"])}


def handler(payload: Any) -> Any:
    """The function."""
    return payload
