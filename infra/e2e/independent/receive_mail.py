#!/usr/bin/env python3
"""Receives mail with aiosmtpd (PyPI), a mail server that is not ours, and keeps each message in a file.

    receive_mail.py PORT FOLDER CERTIFICATE KEY

Takes mail on localhost:PORT after STARTTLS only, from anybody, except for recipients that begin with "refused". Runs until it is killed.
"""

import asyncio
import pathlib
import ssl
import sys
import uuid

from aiosmtpd.controller import Controller


class Folder:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused"):
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        unfinished = self.folder / f".{uuid.uuid4()}"
        unfinished.write_bytes(envelope.content)
        unfinished.rename(self.folder / f"{uuid.uuid4()}.eml")
        return "250 taken"


def main():
    port, folder, certificate, key = sys.argv[1:]
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    controller = Controller(
        Folder(folder), hostname="127.0.0.1", port=int(port), tls_context=context, require_starttls=True
    )
    controller.start()
    asyncio.new_event_loop().run_forever()


if __name__ == "__main__":
    main()
