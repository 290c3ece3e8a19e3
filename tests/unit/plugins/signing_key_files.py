"""A signing key as its owner publishes it, year after year: the same key with a later end."""

from __future__ import annotations

import time

from openpgp_packets import (
    CERTIFICATION,
    LIFETIME,
    PUBLIC_KEY,
    REVOCATION,
    SUBKEY,
    USER_ID,
    fingerprint,
    old_packet,
    rsa_key,
    seconds,
    signature,
)

DAY_SECONDS = 86_400
AGE_DAYS = 1000
MADE = int(time.time()) - AGE_DAYS * DAY_SECONDS
SLACK_SECONDS = 3600  # for the tests' own time

BODY = rsa_key(created=MADE)
PINNED = fingerprint(BODY)
OTHER_BODY = rsa_key(created=MADE + 1)
OTHER_FINGERPRINT = fingerprint(OTHER_BODY)


def signing_key(
    days_left: int | None = 400, *, body: bytes = BODY, signed_days_ago: int = 10, revoked: bool = False
) -> bytes:
    """A key in binary form that ends in so many days from now, None for never."""
    days = days_left or 0
    slack = SLACK_SECONDS if days >= 0 else -SLACK_SECONDS
    lifetime = [] if days_left is None else [seconds(LIFETIME, (AGE_DAYS + days) * DAY_SECONDS + slack)]
    signed = MADE + (AGE_DAYS - signed_days_ago) * DAY_SECONDS
    return b"".join(
        [
            old_packet(PUBLIC_KEY, body),
            signature(body, REVOCATION, signed) if revoked else b"",
            old_packet(USER_ID, b"Owner"),
            signature(body, CERTIFICATION, signed, *lifetime),
            old_packet(SUBKEY, rsa_key(created=7)),
        ]
    )


OTHER = signing_key(body=OTHER_BODY)
