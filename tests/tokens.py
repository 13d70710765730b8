"""Tokens and keys, made by hand."""

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import serialization


def public_pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return text.decode()


def by_hand(header: dict[str, Any], claims: dict[str, Any], secret: bytes = b"") -> str:
    """A token that no library would make."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    body = b".".join(parts)
    signature = hmac.digest(secret, body, hashlib.sha256) if secret else b""
    return (body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()
