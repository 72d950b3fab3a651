"""The gateway: Envoy's configuration, health of the whole, reflection, OpenAPI."""
