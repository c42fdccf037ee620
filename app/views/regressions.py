"""An older address of the incidents: what broke in the last year."""

from app.views import incidents


def show() -> None:
    incidents.show(default_state="all", default_span="365")
