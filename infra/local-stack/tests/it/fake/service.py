#!/usr/bin/env python3
"""Stands in for every service: what Stack expects of a process, and no more. Linked under the name of each of them."""

import http.server
import os
import pathlib
import signal
import sys

name = pathlib.Path(sys.argv[0]).name
arguments = sys.argv[1:]

if name == "projectors" and arguments == ["migrate"]:
    print("migrated", os.environ["NATS_URL"], os.environ["DATABASE_URL"].rsplit("/", 1)[1], file=sys.stderr)
    sys.exit(0)
if name == "projectors" and arguments[:3] == ["audit", "keygen", "--out"]:
    pathlib.Path(arguments[3]).write_text("key")
    sys.exit(0)
if name == "projectors" and arguments == ["audit", "key"]:
    print("contrail/EVENTS+" + pathlib.Path(os.environ["AUDIT_KEY_FILE"]).read_text())
    sys.exit(0)



class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
host, port = os.environ["LISTEN_ADDR"].rsplit(":", 1)
http.server.ThreadingHTTPServer((host, int(port)), Answers).serve_forever()
