"""The client commands: each speaks to the API over HTTP, never to Redis."""
