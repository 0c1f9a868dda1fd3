"""What an OpenAPI document cannot say of a well-formed request.

An Idempotency-Key stands for one request: each well-formed one gets a key of its own here. (That a used one is refused is tested elsewhere.)
An import is sent as lines of JSON, a media type that schemathesis has to be told of.
An order's lines add up to 1 to 99,999,999,999 minor units: dear ones are made cheap, and one that costs nothing gets a price.
"""

import json
import uuid

import schemathesis
from hypothesis import strategies as st

TOTAL_MAX = 99_999_999_999


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if case.operation.label == "POST /v1/orders":
        keep_total_in_bounds(case.body["lines"])


def keep_total_in_bounds(lines):
    total = sum(line["quantity"] * line["unit_price_minor"] for line in lines)
    if total > TOTAL_MAX:
        for line in lines:
            line["unit_price_minor"] = min(line["unit_price_minor"], TOTAL_MAX // (line["quantity"] * len(lines)))
    elif total == 0:
        lines[0]["unit_price_minor"] = 1


def ndjson():
    """Lines as an import has them: good ones, ones that are JSON and no more, and ones that are not even that."""
    customer = {"id": "c-42", "email": "a@example.com", "name": "A"}
    goods = st.fixed_dictionaries({
        "sku": st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
        "quantity": st.integers(1, 100),
        "unit_price_minor": st.integers(1, 10_000),
    })
    order = st.fixed_dictionaries({
        "customer": st.just(customer), "currency": st.sampled_from(["EUR", "JPY"]),
        "lines": st.lists(goods, min_size=1, max_size=5), "payment_method": st.just("pm_card_visa"),
    })
    line = st.fixed_dictionaries({"idempotency_key": st.from_regex(r"[!-~]{1,255}", fullmatch=True), "order": order})
    some_json = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)
    lines = st.one_of(line.map(json.dumps), some_json.map(json.dumps), st.text()).map(str.encode) | st.binary()
    return st.tuples(st.lists(lines), st.sampled_from([b"\n", b"\r\n"])).map(lambda drawn: drawn[1].join(drawn[0]))


schemathesis.openapi.media_type("application/x-ndjson", ndjson())
