"""Shards, folds and members on the machines of a Ray cluster (extra ``cluster``); nothing else imports Ray."""
