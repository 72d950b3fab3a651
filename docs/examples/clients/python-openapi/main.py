"""faas-mesh by a client that was made from its OpenAPI document:

    openapi-python-client generate --url http://localhost:8080/openapi.json \\
        --meta none --output-path faas_http
    python main.py http://localhost:8080 greet
"""

import json
import sys

from faas_http import Client
from faas_http.api.function_service import create_function
from faas_http.api.invocation_service import invoke
from faas_http.models import CreateFunctionRequest, InvokeRequest

url, name = sys.argv[1:]
client = Client(url, timeout=60)

code = 'def handler(payload):\n    return {"hello": payload["name"]}\n'
made = create_function.sync(
    client=client, body=CreateFunctionRequest(name=name, runtime="python", code=code)
)
print(json.dumps({"deployed": made.name, "version": made.version}))

request = InvokeRequest(function_id=name, payload={"name": "Ada"}, wait="30s")
record = invoke.sync(client=client, body=request)
print(json.dumps({"status": record.status, "result": record.result}))

refused = invoke.sync_detailed(client=client, body=InvokeRequest(function_id=f"{name}-gone"))
print(json.dumps({"refused": json.loads(refused.content)["details"][0]["reason"]}))
