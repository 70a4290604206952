"""An HTTP/1.1 server for one ASGI app: small, with an end to every wait and a bound to all that it keeps (adr/0016)."""
