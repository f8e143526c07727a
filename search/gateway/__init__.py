"""The gateway: a shop's search over HTTP, with OpenAPI documentation at /docs and a page at /."""
