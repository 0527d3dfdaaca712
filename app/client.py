"""A client of the API, for the command line: one call after the other, errors as one line to read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from app.errors import ClientError

URL = "http://127.0.0.1:3000"
_SECONDS = 60.0
_NO_KEY = " Set CRONSPACE_KEY to an API key."


class Client:
    """Speaks to the API at ``CRONSPACE_URL`` with the key ``CRONSPACE_KEY``."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self.url = environ.get("CRONSPACE_URL", "") or URL
        key = environ.get("CRONSPACE_KEY", "")
        self._has_key = bool(key)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_SECONDS, trust_env=False)
        except (httpx.InvalidURL, ValueError) as error:
            raise ClientError(f"CRONSPACE_URL or CRONSPACE_KEY can't be used: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        """An answer's body; raises :class:`ClientError` with what the API says is wrong."""
        try:
            answer = self._http.request(method, path, json=body, params=query)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ClientError(f"{self.url} can't be reached: {error}") from error
        try:
            told = answer.json()
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise ClientError(
                f"{self.url} answered {answer.status_code}, and no JSON: is that Cronspace's API?"
            )
        if not answer.is_success:
            hint = _NO_KEY if answer.status_code == 401 and not self._has_key else ""
            faults = [f"\n  {one['path'] or 'body'}: {one['message']}" for one in told.get("errors", ())]
            raise ClientError(f"{told.get('detail', answer.status_code)}{hint}{''.join(faults)}")
        return told
