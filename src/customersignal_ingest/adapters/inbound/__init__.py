"""Transports: how payloads come in."""
