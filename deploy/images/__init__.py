"""One image a role: what goes into each, and what the Dockerfiles are checked against."""
