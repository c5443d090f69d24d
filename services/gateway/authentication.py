"""Who calls the gateway: an API key, a token or a certificate, decided before any of the request is read."""

from __future__ import annotations

from services.common.callers import ANONYMOUS, Caller, Credential, set_caller
from services.common.errors import UnauthenticatedError
from services.common.guard import Context, metadata
from services.common.peers import spiffe_id
from services.gateway.api_keys import KeyRing
from services.gateway.quotas import Quota, QuotaBook
from services.gateway.tokens import TokenVerifier

KEY_HEADER = "x-api-key"
TOKEN_HEADER = "authorization"  # noqa: S105 - the name of a header
_SCHEME = "bearer"


class CallerAuthentication:
    """Names the caller of each call and holds it to its quota.

    With keys or tokens, every call must carry one of them. Without both, a certificate names the caller, and
    who has none is ANONYMOUS. ``quota`` is that of callers whose credential brings none of its own.
    """

    def __init__(self, keys: KeyRing | None, tokens: TokenVerifier | None, book: QuotaBook, quota: Quota) -> None:
        self._keys = keys
        self._tokens = tokens
        self._book = book
        self._quota = quota

    async def admit(self, context: Context) -> None:
        """Let a call in under its caller's name.

        Raises:
            UnauthenticatedError: nothing was shown, or nothing that counts.
            PermissionDeniedError: the caller may not do this.
            ResourceExhaustedError: over the caller's quota.
            UnavailableError: the keys of tokens cannot be had now.
        """
        caller, quota = await self._identify(context)
        leave = self._book.enter(caller.name, quota)
        context.add_done_callback(lambda _: leave())  # type: ignore[arg-type]  # the stubs name a class, not a function
        set_caller(caller)

    async def _identify(self, context: Context) -> tuple[Caller, Quota]:
        headers = metadata(context)
        key, authorization = headers.get(KEY_HEADER), headers.get(TOKEN_HEADER)
        if self._keys is None and self._tokens is None:
            name = spiffe_id(context)
            return (Caller(name, Credential.CERTIFICATE) if name else ANONYMOUS), self._quota
        if key is not None and authorization is not None:
            raise UnauthenticatedError(
                "send an API key or a token, not both: it is not known which is meant", reason="CREDENTIALS_AMBIGUOUS"
            )
        if self._keys is not None and key is not None:
            found = self._keys.find(key)
            if found is None:
                raise UnauthenticatedError("the API key is not known here", reason="API_KEY_UNKNOWN")
            return Caller(f"key:{found.name}", Credential.API_KEY), found.quota
        if self._tokens is not None and authorization is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != _SCHEME:
                raise UnauthenticatedError("the authorization header holds no bearer token", reason="TOKEN_INVALID")
            return Caller(f"token:{await self._tokens.subject(token.strip())}", Credential.TOKEN), self._quota
        raise UnauthenticatedError(f"this call needs {self._wanted()}", reason="CREDENTIALS_MISSING")

    def _wanted(self) -> str:
        key, token = f"an API key in the header {KEY_HEADER}", f"a bearer token in the header {TOKEN_HEADER}"
        if self._keys is None:
            return token
        return key if self._tokens is None else f"{key} or {token}"
