#!/usr/bin/env python3
"""Verifies an audit export of Contrail with nothing of Contrail: Python's standard library only.

    verify_export.py FILE --key VKEY [--checkpoint FILE] [--proof FILE]

FILE is a JSONL export, VKEY a C2SP verifier key or a file that holds one. If the checkpoint states a part, in its extension line
"contrail.part.v1", the file must have exactly its lines: as many, with the root of their own Merkle tree (RFC 6962), and each with a
proof in FILE.proof that it is in the tree of the log. If not, the file must have every event from position 1 on, and its tree the signed
root, whatever lies beside it; only where --proof is given, each line is checked by its proof alone, and nothing shows whether lines are
missing. Exit code 0 if all of it holds, 5 if not, 2 if it cannot be told.

Sources: RFC 6962 section 2.1, RFC 9162 section 2.1.3.2, RFC 8032 section 5.1.7, C2SP signed-note and tlog-checkpoint.
"""

import argparse
import base64
import hashlib
import json
import os
import sys

# Ed25519 (RFC 8032, section 5.1).
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def add(a, b):
    """Adds two points in extended coordinates."""
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g = 2 * a[3] * b[3] * D % P
    h = 2 * a[2] * b[2] % P
    x, y, z, t = f - e, h - g, h + g, f + e
    return (x * y % P, z * t % P, y * z % P, x * t % P)


def multiply(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def same(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def point(encoded):
    """Decodes a point, or returns None."""
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_M1 % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = point(BASE_Y.to_bytes(32, "little"))


def ed25519_verifies(public_key, message, signature):
    a, r = point(public_key), point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or a is None or r is None or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % L
    return same(multiply(s, BASE), add(r, multiply(h, a)))


class Wrong(Exception):
    """The export is not what was signed."""


def leaf_hash(data):
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """Merkle tree of RFC 6962, of which only the roots of complete subtrees are kept."""

    def __init__(self):
        self.size, self.peaks = 0, []

    def append(self, leaf):
        size = self.size
        while size & 1:
            leaf = node_hash(self.peaks.pop(), leaf)
            size >>= 1
        self.peaks.append(leaf)
        self.size += 1

    def root(self):
        if not self.peaks:
            return hashlib.sha256(b"").digest()
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root


def includes(root, size, index, leaf, proof):
    """RFC 9162, section 2.1.3.2."""
    if index >= size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            r = node_hash(r, p)
        fn >>= 1
        sn >>= 1
    return sn == 0 and r == root


def open_checkpoint(note, vkey):
    """Returns the origin, the size and the root of a checkpoint that the key has signed, and its extension lines."""
    name, key_id, key = vkey.strip().split("+", 2)
    key = base64.b64decode(key, validate=True)
    expected_id = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
    if key[0] != 1 or bytes.fromhex(key_id) != expected_id:
        raise ValueError("the verifier key is malformed")
    try:
        text, signatures = note.decode().rsplit("\n\n", 1)
    except (UnicodeDecodeError, ValueError):
        raise Wrong("the checkpoint is no signed note") from None
    text += "\n"
    for line in signatures.split("\n")[:-1]:
        mark, signer, signature = (line.split(" ") + ["", ""])[:3]
        try:
            signature = base64.b64decode(signature, validate=True)
        except ValueError:
            raise Wrong("a signature is malformed") from None
        if mark == "\u2014" and signer == name and signature[:4] == expected_id:
            if not ed25519_verifies(key[1:], text.encode(), signature[4:]):
                raise Wrong("the signature is wrong")
            origin, size, root, *extensions = text.split("\n")[:-1]
            if origin != name:
                raise Wrong("the checkpoint is of another log")
            return origin, int(size), base64.b64decode(root, validate=True), extensions
    raise Wrong("the key has not signed the checkpoint")


def stated_part(extensions):
    """Returns what the checkpoint of a partial export states, and None if it states nothing."""
    stated = [line for line in extensions if line.startswith("contrail.part.")]
    if not stated:
        return None
    if len(stated) > 1 or not stated[0].startswith("contrail.part.v1 "):
        raise Wrong("the checkpoint states a part in an unknown way")
    return json.loads(stated[0].split(" ", 1)[1])


def lines_of(path):
    """The lines of a file, each of which must end."""
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                raise Wrong("the last line does not end")
            yield line[:-1]


def verify_whole(path, size, root):
    tree = Tree()
    for line in lines_of(path):
        tree.append(leaf_hash(line))
    if tree.size != size:
        raise Wrong(f"the file has {tree.size} lines, and {size} were signed")
    if tree.root() != root:
        raise Wrong("the lines do not have the signed root")
    return tree.size


def verify_part(path, proof_path, size, root, part):
    own = Tree()
    proofs = lines_of(proof_path)
    last = count = 0
    for line in lines_of(path):
        count += 1
        try:
            proof = json.loads(next(proofs))
            position, leaf = proof["position"], base64.b64decode(proof["leaf"], validate=True)
            inclusion = [base64.b64decode(sibling, validate=True) for sibling in proof["inclusion"]]
        except (StopIteration, ValueError, KeyError, TypeError):
            raise Wrong(f"line {count} has no proof") from None
        if leaf != leaf_hash(line):
            raise Wrong(f"line {count} is not the event at position {position}")
        if not isinstance(position, int) or position <= last:
            raise Wrong(f"line {count} is out of order")
        if not includes(root, size, position - 1, leaf, inclusion):
            raise Wrong(f"line {count} is not proven to be in the log")
        last = position
        own.append(leaf)
    if next(proofs, None) is not None:
        raise Wrong("a line is missing of which there is a proof")
    if part is not None and own.size != part["lines"]:
        raise Wrong(f"the file has {own.size} lines, and {part['lines']} were exported")
    if part is not None and own.root() != base64.b64decode(part["root"], validate=True):
        raise Wrong("the lines are not those that were exported")
    return count


def read_key(key):
    """Returns the verifier key that is given, or that the file of this name holds."""
    if os.path.exists(key):
        with open(key, encoding="utf-8") as file:
            key = file.read()
    return key


def main():
    parser = argparse.ArgumentParser(description="Verifies an audit export of Contrail.")
    parser.add_argument("file")
    parser.add_argument("--key", required=True)
    parser.add_argument("--checkpoint")
    parser.add_argument("--proof")
    arguments = parser.parse_args()
    vkey = read_key(arguments.key)
    with open(arguments.checkpoint or arguments.file + ".checkpoint", "rb") as file:
        note = file.read()
    proof = arguments.proof or arguments.file + ".proof"
    try:
        _, size, root, extensions = open_checkpoint(note, vkey)
        part = stated_part(extensions)
        if part is not None or arguments.proof:
            lines = verify_part(arguments.file, proof, size, root, part)
        else:
            lines = verify_whole(arguments.file, size, root)
    except Wrong as wrong:
        print(f"not verified: {wrong}")
        return 5
    print(f"verified: {lines} lines of a log of {size} events with the root {base64.b64encode(root).decode()}")
    if part is not None:
        print(f"exported were those with {json.dumps(part['filter'])}")
    elif arguments.proof:
        print("nothing that is signed shows whether lines are missing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
