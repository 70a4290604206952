"""Secrets to plant in tests, so that one search through logs and metrics finds whatever leaked.

Each has the mark in it, and the test kit uses them where it makes up keys and events.
"""

import base64

MARK = "pl4ntedSecret"
"""What every planted secret has in it, and nothing else has."""

API_KEY = f"cs_live_kAcme_{MARK}_000000"
USER_ID = f"{MARK}-user"
SESSION_ID = f"{MARK}-session"
IDEMPOTENCY_KEY = f"{MARK}-idempotency-key"
PROPERTY = f"{MARK}-property"
PEPPER = f"{MARK}-pepper"


def leaked(text: str, /, *secrets: str) -> list[str]:
    """Return each line that has the mark or one of these secrets in it, written plainly, in hexadecimal or base64."""
    spellings = [spelling for secret in (MARK, *secrets) for spelling in _spellings(secret)]
    return [line for line in text.splitlines() if any(spelling in line for spelling in spellings)]


def _spellings(secret: str) -> list[str]:
    raw = secret.encode()
    # Where a secret stands in the middle of what is encoded, its first and last characters are mixed with others.
    inner = [base64.b64encode(b"\0" * shift + raw).decode()[4 if shift else 0 : -4] for shift in range(3)]
    return [secret, raw.hex(), *(text for text in inner if len(text) >= 8)]
