"""What an OpenAPI document cannot say of a well-formed request.

An Idempotency-Key stands for one request: each well-formed one gets a key of its own here. (That a used one is refused is tested elsewhere.)
An order's lines add up to 1 to 99,999,999,999 minor units: dear ones are made cheap, and one that costs nothing gets a price.
"""

import uuid

import schemathesis

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
