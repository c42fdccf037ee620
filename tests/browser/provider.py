"""A stand-in for an OpenID Connect provider that knows one user and asks no questions."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "dashboard", "a secret that only the provider and the app know"
USER = {"sub": "7", "name": "Ada Example", "email": "ada@example.org"}


@contextmanager
def provider() -> Iterator[str]:
    """Serve it; yields its address. It hands out what OpenID Connect's code flow needs."""
    key = RSAKey.generate_key(2048, {"kid": "1", "use": "sig", "alg": "RS256"})
    nonces: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            place = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(place.query).items()}
            if place.path == "/.well-known/openid-configuration":
                self._answer(
                    {
                        "issuer": address,
                        "authorization_endpoint": f"{address}/authorize",
                        "token_endpoint": f"{address}/token",
                        "jwks_uri": f"{address}/keys",
                        "response_types_supported": ["code"],
                        "subject_types_supported": ["public"],
                        "id_token_signing_alg_values_supported": ["RS256"],
                    }
                )
            elif place.path == "/keys":
                self._answer({"keys": [key.as_dict(private=False)]})
            elif place.path == "/authorize" and asked["client_id"] == CLIENT_ID:
                code = f"code-{len(nonces)}"
                nonces[code] = asked.get("nonce", "")
                answer = urlencode({"code": code, "state": asked["state"]})
                self.send_response(302)
                self.send_header("Location", f"{asked['redirect_uri']}?{answer}")
                self.end_headers()
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            code = parse_qs(body)["code"][0]
            if urlsplit(self.path).path != "/token" or code not in nonces:
                self.send_error(400)
                return
            now = int(time.time())
            claims = {
                **USER,
                "iss": address,
                "aud": CLIENT_ID,
                "iat": now,
                "exp": now + 600,
                "nonce": nonces.pop(code),
            }
            token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, key)
            self._answer(
                {
                    "access_token": "access",
                    "token_type": "Bearer",
                    "expires_in": 600,
                    "id_token": token,
                }
            )

        def _answer(self, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing on the console."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def secrets_toml(provider_address: str, app_address: str) -> str:
    """What an operator writes into Streamlit's secrets.toml."""
    return (
        "[auth]\n"
        f'redirect_uri = "{app_address}/oauth2callback"\n'
        'cookie_secret = "a long random string that signs the cookie"\n'
        f'client_id = "{CLIENT_ID}"\n'
        f'client_secret = "{CLIENT_SECRET}"\n'
        f'server_metadata_url = "{provider_address}/.well-known/openid-configuration"\n'
    )
