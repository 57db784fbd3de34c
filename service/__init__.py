"""The HTTP service: application, runs, routes, middleware, and what they are made of."""
