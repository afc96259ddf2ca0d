"""Durable storage of logs and state: the LMDB adapter and the in-memory store."""
