#!/usr/bin/env bash
# apprise 2.3.0: notify() no longer returns True, False or None.
#
# It returns an AppriseResult, which equals none of the three: `notify(...) is False`, `== False` and
# `is None`, all of which told apart "failed" and "nobody to tell" before, are false whatever happened;
# only its truth value tells.
#
# Seen: for no recipient and for one that refuses the connection, `== True`, `== False` and `is None`
# are all False, and bool() is False.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q apprise==2.3.0
cat >"$folder/show.py" <<'PYTHON'
import socket
import sys

import apprise

with socket.socket() as listener:  # a port on which nobody listens
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
nobody, refused = apprise.Apprise(), apprise.Apprise()
refused.add(f"json://127.0.0.1:{port}")
good = True
for name, sender in {"no recipient": nobody, "refused": refused}.items():
    result = sender.notify("text")
    answers = (result == True, result == False, result is None, bool(result))  # noqa: E712
    print(f"{name}: {result!r} == True, == False, is None, bool: {answers}")
    good = good and answers == (False, False, False, False)
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
