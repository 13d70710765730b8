"""The HTTP interface: routes, errors, the live page and the API reference. The OpenAPI document is its contract."""
