"""Proof from outside that what was answered is true: a client's journal, held against what is stored.

Nothing here knows the service that it judges, so that an error of the service can't excuse itself:
no rule, no encoder, no record type is shared, and an import contract holds that.
"""
