"""Callers' bearer tokens: signed JSON web tokens (RFC 7519) from one issuer, for us, and not over."""

from __future__ import annotations

from dataclasses import dataclass

import jwt

from services.common.errors import PermissionDeniedError, UnauthenticatedError
from services.gateway.signing_keys import SigningKeys

_MOST_SUBJECT = 128


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must say: who issued it, for whom, and which scope (none when empty).

    ``leeway_seconds`` is how far clocks may be apart.
    """

    issuer: str
    audience: str
    scope: str = ""
    leeway_seconds: float = 30.0


class TokenVerifier:
    """Says whose a token is.

    The algorithm is that of the key, never that of the token's header, so neither ``none`` nor a public key
    taken for a shared secret gets through.
    """

    def __init__(self, rules: TokenRules, keys: SigningKeys) -> None:
        self._rules = rules
        self._keys = keys

    async def subject(self, token: str) -> str:
        """The token's subject.

        Raises:
            UnauthenticatedError: the token proves nothing (TOKEN_INVALID) or is over (TOKEN_EXPIRED).
            PermissionDeniedError: it lacks the scope (SCOPE_MISSING).
            UnavailableError: the keys cannot be had now (TOKEN_KEYS_UNAVAILABLE).
        """
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError as error:
            raise _invalid() from error
        key = await self._keys.find(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise _invalid()
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=self._rules.issuer,
                audience=self._rules.audience,
                leeway=self._rules.leeway_seconds,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError("the token has expired", reason="TOKEN_EXPIRED") from error
        except jwt.PyJWTError as error:
            raise _invalid() from error
        subject = claims["sub"]
        if not subject or len(subject) > _MOST_SUBJECT or not subject.isprintable():
            raise _invalid()
        if self._rules.scope and self._rules.scope not in str(claims.get("scope", "")).split():
            raise PermissionDeniedError("the token lacks the scope that this needs", reason="SCOPE_MISSING")
        return str(subject)


def _invalid() -> UnauthenticatedError:
    return UnauthenticatedError("the token is not valid here", reason="TOKEN_INVALID")
