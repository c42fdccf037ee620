"""`dashboard`: serve the app on this machine."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Mapping
from http.client import HTTPException
from typing import Annotated

import typer

from virnucpro_monitor.cli.options import DatabaseOption, say
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.settings import load_settings, resource_folder

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8501
PORTS_TO_TRY = 20
START_TIMEOUT_S = 30.0

# The app's look. Streamlit follows the reader's system between light and dark.
THEME = {
    "theme.primaryColor": "#2B7CB8",
    "theme.baseRadius": "0.5rem",
    "theme.linkUnderline": "true",
    "theme.light.backgroundColor": "#FFFFFF",
    "theme.light.secondaryBackgroundColor": "#F4F6F8",
    "theme.light.textColor": "#1C2630",
    "theme.dark.backgroundColor": "#12171C",
    "theme.dark.secondaryBackgroundColor": "#1C242C",
    "theme.dark.textColor": "#E4E9EE",
}
SERVER = {
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "runner.postScriptGC": "false",  # a third of a page's time; Python collects as it needs to
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "client.showErrorLinks": "false",
}


def register(app: typer.Typer) -> None:
    app.command("dashboard")(dashboard)


def dashboard(
    db: DatabaseOption = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")
    ] = DEFAULT_HOST,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="PORT",
            help=f"Port to listen on [default: {DEFAULT_PORT}, or the next free one].",
            show_default=False,
            min=1,
            max=65535,
        ),
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    allow_acknowledge: Annotated[
        bool,
        typer.Option(
            "--allow-acknowledge",
            help="Let readers acknowledge incidents: the only thing the app ever writes.",
        ),
    ] = False,
) -> None:
    """Browse the results in a web browser; stop it with Ctrl-C."""
    from virnucpro_monitor.monitor.opening import open_for_reading

    settings = load_settings(db=db, writable_app=allow_acknowledge or None)
    open_for_reading(settings.database_url).dispose()  # say here what is wrong with it
    serve(
        settings.database_url,
        host=host,
        port=port,
        open_browser=not no_open,
        writable=settings.writable_app,
    )


def serve(
    database_url: str,
    *,
    host: str = DEFAULT_HOST,
    port: int | None = None,
    open_browser: bool = True,
    writable: bool = False,
) -> None:
    """Run the app's server until it is interrupted.

    Raises:
        ConfigurationError: the port is taken, the address is not this machine's, or the server
            ended by itself.
    """
    environment = server_environment(os.environ, database_url, writable)
    chosen = find_port(host, port)
    server = subprocess.Popen(server_command(host, chosen), env=environment)
    # A service manager stops us by SIGTERM: end the server with us, as Ctrl-C does.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while (address := _find_address(server, host, chosen)) is None:
            # Another program may have taken the port while the server started.
            lost, chosen = chosen, find_port(host, port)
            if chosen == lost:
                break
            say(f"Port {lost} was taken meanwhile: trying {chosen}.")
            server = subprocess.Popen(server_command(host, chosen), env=environment)
        else:
            _announce(address, open_browser)
        code = server.wait()
    except KeyboardInterrupt:
        say("The dashboard has stopped.")
        return
    finally:
        signal.signal(signal.SIGTERM, previous)
        _stop(server)
    if code != 0:
        raise ConfigurationError(
            f"The dashboard's server ended by itself with exit code {code}: its messages stand "
            "above."
        )


def _announce(address: str, open_browser: bool) -> None:
    say(f"The dashboard is at {address} (Ctrl-C stops it).")
    if open_browser:
        webbrowser.open(address)


def find_port(host: str, port: int | None) -> int:
    """`port` if it is free; without one, the first free port from the default on.

    Raises:
        ConfigurationError: it is taken, or `host` is not an address of this machine.
    """
    candidates = [port] if port else range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TO_TRY)
    for candidate in candidates:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[
                0
            ]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                return candidate
        except socket.gaierror as error:
            raise ConfigurationError(
                f"{host!r} is not an address: use --host {DEFAULT_HOST}, or one of this machine's."
            ) from error
        except PermissionError as error:
            raise ConfigurationError(
                f"Port {candidate} needs more rights than you have: choose one above 1023 with "
                "--port."
            ) from error
        except OSError as error:
            if error.errno not in _TAKEN:
                raise ConfigurationError(
                    f"The dashboard cannot listen on {host}: {error.strerror or error}."
                ) from error
    wanted = f"Port {port} is" if port else f"Ports {candidates[0]} to {candidates[-1]} are"
    raise ConfigurationError(f"{wanted} taken by another program: choose another with --port.")


_TAKEN = {errno.EADDRINUSE}


def server_command(host: str, port: int) -> list[str]:
    """The command that serves the app; everything is set by flags, so that no file is needed."""
    script = resource_folder("app") / "served.py"
    options = SERVER | THEME | {"server.address": host, "server.port": str(port)}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", "app", "run", str(script), *flags]


def server_environment(
    environment: Mapping[str, str], database_url: str, writable: bool
) -> dict[str, str]:
    """The server's environment: the database travels in it, as a URL may hold a password."""
    # The folder that holds `app` comes first: the app imports itself as `app`.
    folders = [str(resource_folder("app").parent), environment.get("PYTHONPATH", "")]
    return {
        **environment,
        "PYTHONPATH": os.pathsep.join(folder for folder in folders if folder),
        "VIRNUCPRO_MONITOR_DB": database_url,
        "VIRNUCPRO_MONITOR_WRITABLE_APP": "true" if writable else "false",
    }


def browser_address(host: str, port: int) -> str:
    """Where a browser on this machine finds a server that listens on `host`."""
    if host in {"", "0.0.0.0"}:
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _find_address(server: "subprocess.Popen[bytes]", host: str, port: int) -> str | None:
    """Where the server itself answers, as soon as it does; None where it has ended before.

    Streamlit's own settings may have put it behind TLS, or below a path.
    """
    import ssl
    from urllib.request import HTTPSHandler, ProxyHandler, build_opener

    # It is this machine: no proxy in between, and the process's number tells that it is ours.
    unnamed = ssl.create_default_context()
    unnamed.check_hostname, unnamed.verify_mode = False, ssl.CERT_NONE
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=unnamed))
    address = browser_address(host, port)
    began, patient = time.monotonic(), True
    while server.poll() is None:
        for tried in (address, address.replace("http:", "https:", 1)):
            try:
                with opener.open(f"{tried}/process", timeout=2) as answer:
                    number, _, base = answer.read(1_000).decode(errors="replace").partition("\n")
            except (OSError, HTTPException):
                continue
            if number == str(server.pid):  # else another has the port
                return f"{tried}/{base}" if base else tried
        if patient and time.monotonic() - began > START_TIMEOUT_S:
            patient = False
            say(f"The dashboard does not answer at {address} yet: still waiting (Ctrl-C stops it).")
        time.sleep(0.1)
    return None


def _stop(server: "subprocess.Popen[bytes]") -> None:
    if server.poll() is not None:
        return
    server.terminate()
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
