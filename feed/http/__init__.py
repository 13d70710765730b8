"""The HTTP side: routes, problems, the live page. What outsiders see is fixed in the OpenAPI document."""
