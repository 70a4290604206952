"""`python -m customersignal_ingest`: the same as `cs-ingest`."""

from customersignal_ingest.cli import main

main()
