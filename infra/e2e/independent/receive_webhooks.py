#!/usr/bin/env python3
"""Receives webhooks and verifies them with standardwebhooks (PyPI), the specification's own library.

    receive_webhooks.py PORT SECRET FILE

Writes a line "ID TYPE ORDER" to FILE for each that verifies, and answers 204; the others are answered 401. Runs until it is killed.
"""

import http.server
import sys

from standardwebhooks import Webhook, WebhookVerificationError


def main():
    port, secret, path = sys.argv[1:]
    webhook = Webhook(secret)
    verified = open(path, "a", buffering=1)

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            try:
                told = webhook.verify(body, {name.lower(): value for name, value in self.headers.items()})
            except WebhookVerificationError as error:
                print(f"not verified: {error}", file=sys.stderr)
                self.send_response(401)
            else:
                print(self.headers["webhook-id"], told["type"], told["data"]["order_id"], file=verified)
                self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Receiver).serve_forever()


if __name__ == "__main__":
    main()
