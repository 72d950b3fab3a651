"""The services that are public: routed, transcoded, reflected, documented."""

FUNCTIONS = "faas.v1.FunctionService"
INVOCATIONS = "faas.v1.InvocationService"
PUBLIC_SERVICES = (FUNCTIONS, INVOCATIONS)
