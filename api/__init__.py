"""HTTP: the lifespan, the runs, LangServe's routes, messages, streams and error bodies."""
