"""Stores: where records and keys are kept."""
