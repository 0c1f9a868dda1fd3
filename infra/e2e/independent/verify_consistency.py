#!/usr/bin/env python3
"""Verifies a consistency proof of Contrail with nothing of Contrail: that the log of a later checkpoint begins with that of an earlier one.

    verify_consistency.py OLD.checkpoint NEW.checkpoint PROOF --key VKEY

PROOF is what `projectors audit consistency OLD.checkpoint NEW.checkpoint --output json` prints. Exit code 0 if the proof holds, 5 if not.

Source: RFC 9162, section 2.1.4.2.
"""

import argparse
import base64
import json
import sys

from verify_export import Wrong, node_hash, open_checkpoint, read_key


def extends(old_size, old_root, size, root, path):
    if old_size == size:
        return not path and old_root == root
    if old_size < 1 or old_size > size:
        return False
    if old_size & (old_size - 1) == 0:
        path = [old_root] + path
    if not path:
        return False
    fn, sn = old_size - 1, size - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            sr = node_hash(sr, c)
        fn >>= 1
        sn >>= 1
    return sn == 0 and fr == old_root and sr == root


def checkpoint(path, key):
    with open(path, "rb") as file:
        _, size, root, _ = open_checkpoint(file.read(), key)
    return size, root


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ["old", "new", "proof"]:
        parser.add_argument(name)
    parser.add_argument("--key", required=True)
    arguments = parser.parse_args()
    key = read_key(arguments.key)
    try:
        old, new = checkpoint(arguments.old, key), checkpoint(arguments.new, key)
        with open(arguments.proof) as file:
            try:
                path = [base64.b64decode(text, validate=True) for text in json.load(file)["consistency"]]
            except (ValueError, KeyError, TypeError):
                raise Wrong("the proof cannot be read") from None
        if not extends(*old, *new, path):
            raise Wrong("the proof does not lead from the old root to the new one")
    except Wrong as wrong:
        print(f"verified  no: {wrong}")
        return 5
    print(f"verified  yes: the {new[0]} events begin with the {old[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
