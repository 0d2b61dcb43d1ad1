"""The web page and the HTTP API: a model in people's hands, on the small install alone."""
