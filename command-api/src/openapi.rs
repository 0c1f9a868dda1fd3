//! The OpenAPI 3.1 document.
//!
//! Paths, bodies and schemas come from the handlers' own annotations. What is the same for many routes is added here from the
//! same constants and the same [`Code`]s that the routes answer with: headers, and every problem that can occur.

use std::{collections::BTreeMap, sync::OnceLock};

use domain::{Currency, order::TEXT_CHARS_MAX};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::{
    api::documented_routes,
    bulk::{BYTES, BulkLine, BulkResult, NDJSON},
    fields::TEXT_PATTERN,
    limits::{IDEMPOTENCY_KEY_CHARS_MAX, RETRY_AFTER_S},
    problem::{Code, FIELD_ERROR_CODES, PROBLEM_CONTENT_TYPE, ProblemDocument},
};

const DESCRIPTION: &str = "Commands to the Contrail order backbone: place, cancel, ship and deliver orders; receive and adjust stock.

Every request under `/v1` needs a bearer token, unless the service was told to ask nobody who they are. What belongs to another customer is \
answered like what does not exist.

Every POST needs an `Idempotency-Key`, an import one on each line. The same key with the same body gets the first answer again, with `Idempotent-Replayed: true`; \
the same key with another body gets 422. A command that found done what it asks for changes nothing and takes no key: \
sent again, it is answered with the order as it is by then. Texts are not blank and hold no control characters. \
A command answered with 2xx is in the log and will not be lost.

Every error is `application/problem+json` (RFC 9457). A path that is not listed here is answered 404 `route-not-found`, a method that \
is not listed 405 `method-not-allowed` with an `Allow` header.";

/// Where orders are imported: the one route whose bodies are no single JSON documents.
const IMPORT_PATH: &str = "/v1/orders/bulk";

/// The base that the routes' annotations are added to.
#[derive(OpenApi)]
#[openapi(components(schemas(ProblemDocument, BulkLine, BulkResult)))]
struct Base;

/// The document as pretty JSON, made once.
pub fn json() -> &'static str {
    static JSON: OnceLock<String> = OnceLock::new();
    JSON.get_or_init(|| {
        let pretty = serde_json::to_string_pretty(&document()).expect("a JSON value always serializes");
        pretty + "\n"
    })
}

/// The document.
pub fn document() -> Value {
    let annotated = Base::openapi().merge_from(documented_routes().into_openapi());
    let mut document = serde_json::to_value(annotated).expect("an OpenAPI document has string keys only");
    document["info"] = json!({
        "title": "Contrail command API",
        "version": env!("CARGO_PKG_VERSION"),
        "description": DESCRIPTION,
        "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
    });
    document["servers"] = json!([{"url": "/", "description": "The host that serves this document"}]);
    document["tags"] = json!([
        {"name": "orders", "description": "An order, from the checkout to the doorstep."},
        {"name": "stock", "description": "What is on the shelf, and how much of it is promised."},
        {"name": "operations", "description": "For those who run the service."},
    ]);
    for (path, item) in operations() {
        document["paths"][path] = item;
    }
    let paths = document["paths"].as_object_mut().expect("paths are an object");
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().expect("a path item is an object") {
            complete(path, method, operation);
        }
    }
    complete_schemas(&mut document);
    describe_lines(&mut document);
    document["components"]["examples"] = Code::ALL.iter().map(|code| (code.as_str().to_owned(), problem_example(*code))).collect();
    document["components"]["parameters"] = parameters();
    document["components"]["headers"] = headers();
    document["components"]["securitySchemes"] = json!({"bearer": {
        "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
        "description": "A JSON Web Token, signed with EdDSA or RS256, with `sub`, `aud`, `exp` and `role`: `customer` (places, sees and \
                        cancels orders whose customer is its `sub`), `service` (the same for every customer, and imports), `operator` (cancels, ships \
                        and delivers orders, changes stock) or `auditor` (reads).",
    }});
    document
}

/// The routes that every service has, and those of this document.
fn operations() -> [(&'static str, Value); 6] {
    let get = |id: &str, summary: &str, responses: Value| json!({"get": {"operationId": id, "summary": summary, "tags": ["operations"], "responses": responses}});
    let text = |description: &str, media_type: &str| json!({"200": {"description": description, "content": {media_type: {"schema": {"type": "string"}}}}});
    let readiness = json!({
        "type": "object", "required": ["ready", "draining", "components"],
        "properties": {
            "ready": {"type": "boolean"}, "draining": {"type": "boolean"},
            "components": {"type": "object", "additionalProperties": {
                "type": "object", "required": ["ready", "detail"],
                "properties": {"ready": {"type": "boolean"}, "detail": {"type": "string"}},
            }},
        },
    });
    let ready = |ready: bool, description: &str, detail: &str| {
        let example = json!({"ready": ready, "draining": false, "components": {"nats": {"ready": ready, "detail": detail}}});
        json!({"description": description, "content": {"application/json": {"schema": readiness, "example": example}}})
    };
    let alive = json!({
        "type": "object", "required": ["status"], "properties": {"status": {"type": "string", "const": "alive"}},
    });
    let alive = json!({"200": {
        "description": "It answers.",
        "content": {"application/json": {"schema": alive, "example": {"status": "alive"}}},
    }});
    [
        ("/health", get("health", "Whether the process answers at all", alive)),
        (
            "/ready",
            get(
                "ready",
                "Whether commands can be served",
                json!({
                    "200": ready(true, "They can.", ""),
                    "503": ready(false, "They cannot; the body says why.", "waiting for the NATS server"),
                }),
            ),
        ),
        ("/metrics", get("metrics", "Prometheus or OpenMetrics text", text("Every metric.", "text/plain"))),
        (
            "/openapi.json",
            get(
                "openapi",
                "This document",
                json!({"200": {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}}}),
            ),
        ),
        ("/docs", get("docs", "This document for people", text("A page.", "text/html"))),
        ("/problems/{code}", get("problem", "What a kind of problem means", text("An explanation.", "text/plain"))),
    ]
}

/// What the annotations cannot say of schemas: that unknown fields are refused, and which codes there are.
fn complete_schemas(document: &mut Value) {
    let bodies = document["paths"].as_object().expect("paths are an object").values();
    let bodies = bodies.filter_map(|item| item["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str());
    let mut requested: Vec<String> = bodies.map(schema_name).chain(["BulkLine".to_owned()]).collect();
    let schemas = document["components"]["schemas"].as_object_mut().expect("there are schemas");
    while let Some(name) = requested.pop() {
        let schema = &mut schemas[&name];
        schema["additionalProperties"] = json!(false);
        for (name, property) in schema["properties"].as_object_mut().into_iter().flatten() {
            complete_property(name, property);
        }
        let properties = schema["properties"].as_object().into_iter().flatten().map(|(_, property)| property);
        let nested = properties.flat_map(|property| [&property["$ref"], &property["items"]["$ref"]]);
        requested.extend(nested.filter_map(Value::as_str).map(schema_name));
    }
    schemas["Problem"]["properties"]["code"]["enum"] = Code::ALL.iter().map(|code| code.as_str()).collect();
    schemas["FieldError"]["properties"]["code"]["enum"] = FIELD_ERROR_CODES.into();
}

/// What is not written at every field: which texts are texts, and what the currencies are.
fn complete_property(name: &str, property: &mut Value) {
    if property["maxLength"] == TEXT_CHARS_MAX && property["format"].is_null() {
        property["pattern"] = TEXT_PATTERN.into();
    }
    match name {
        "currency" => property["enum"] = Currency::all().map(Currency::code).collect(),
        "delta" => property["not"] = json!({"const": 0}),
        _ => {}
    }
}

fn schema_name(reference: &str) -> String {
    reference.rsplit('/').next().unwrap_or(reference).to_owned()
}

/// Adds what an operation has in common with others.
fn complete(path: &str, method: &str, operation: &mut Value) {
    let is_api = path.starts_with("/v1/");
    let is_import = path == IMPORT_PATH;
    let (is_command, begins_aggregate) = (method == "post" && !is_import, path == "/v1/orders");
    let mut parameters: Vec<Value> = path_parameters(path);
    let mut refer = |name: &str| parameters.push(json!({"$ref": format!("#/components/parameters/{name}")}));
    if is_command {
        refer("IdempotencyKey");
        if !begins_aggregate {
            refer("IfMatch");
            refer("CommandIfNoneMatch");
        }
        refer("CorrelationId");
    } else if is_import {
        refer("CorrelationId");
    } else if is_api {
        refer("IfNoneMatch");
    }
    refer("RequestId");
    if is_api {
        refer("Traceparent");
    }
    operation["parameters"] = parameters.into();
    if is_api {
        operation["security"] = json!([{"bearer": []}]);
    }
    if path.ends_with("/deliver") {
        operation["requestBody"]["required"] = json!(false);
    }

    let responses = operation["responses"].as_object_mut().expect("responses are an object");
    for response in responses.values_mut() {
        let mut names = vec!["X-Request-Id", "Cache-Control"];
        names.extend((is_api && !is_import).then_some("ETag"));
        names.extend(is_command.then_some("Idempotent-Replayed"));
        names.extend((is_command && begins_aggregate).then_some("Location"));
        response["headers"] = header_references(&names);
        if let Some(links) = links_from(path, method) {
            response["links"] = links;
        }
    }
    if is_api && !is_command && !is_import {
        let headers = header_references(&["X-Request-Id", "Cache-Control", "ETag"]);
        let not_modified = json!({"description": "The client has this version already.", "headers": headers});
        responses.insert("304".to_owned(), not_modified);
    }
    for (status, codes) in problems_by_status(path, is_api, is_command) {
        // `/ready` answers 503 in its own words.
        responses.entry(status.to_string()).or_insert_with(|| problem_response(&codes));
    }
}

/// OpenAPI 3.1 has no streams of items: to it, such a body is a text. What the text holds is said as JSON Schema has it for documents within
/// texts (2020-12 validation, section 8), which says what to expect and is no condition.
fn describe_lines(document: &mut Value) {
    let described = |schema: &str| {
        let items = json!({"$ref": format!("#/components/schemas/{schema}")});
        json!({"schema": {
            "type": "string", "contentMediaType": NDJSON, "contentSchema": {"type": "array", "items": items},
        }})
    };
    let operation = &mut document["paths"][IMPORT_PATH]["post"];
    // A client made from this document may know how to send bytes, and not this media type.
    operation["requestBody"]["content"] = json!({NDJSON: described("BulkLine"), BYTES: {"schema": {"type": "string"}}});
    operation["responses"]["200"]["content"] = json!({NDJSON: described("BulkResult")});
}

/// What can be done next with what a command has brought about.
fn links_from(path: &str, method: &str) -> Option<Value> {
    let link = |id: &str, parameter: &str, expression: &str| {
        (id.to_owned(), json!({"operationId": id, "parameters": {parameter: expression}}))
    };
    let (ids, parameter, expression): (&[&str], _, _) = match (method, path) {
        ("post", "/v1/orders") => (&["getOrder", "cancelOrder", "shipOrder", "deliverOrder"], "id", "$response.body#/order_id"),
        ("post", "/v1/stock/{sku}/receipts") => (&["getStock", "receiveStock", "adjustStock"], "sku", "$response.body#/sku"),
        _ => return None,
    };
    Some(Value::Object(ids.iter().map(|id| link(id, parameter, expression)).collect()))
}

/// Every problem that an operation can answer with.
fn problems_by_status(path: &str, is_api: bool, is_command: bool) -> BTreeMap<u16, Vec<Code>> {
    let mut codes = vec![Code::UriTooLong, Code::HeadersTooLarge, Code::Internal];
    if path == "/problems/{code}" {
        codes.push(Code::RouteNotFound);
    }
    if is_api {
        codes.extend([Code::Unauthenticated, Code::TooManyRequests, Code::AuthUnavailable]);
        codes.extend([Code::Unavailable, Code::Overloaded, Code::Draining, Code::DeadlineExceeded]);
    }
    if path.contains('{') && is_api {
        codes.push(Code::InvalidParameter);
    }
    if path == IMPORT_PATH {
        // Whatever is wrong with a line is in the line's result.
        codes.extend([Code::Forbidden, Code::UnsupportedMediaType]);
    } else if is_command {
        codes.extend([Code::InvalidHeader, Code::InvalidJson, Code::ContentTooLarge, Code::UnsupportedMediaType]);
        codes.extend([Code::InvalidFields, Code::IdempotencyKeyReused, Code::Conflict]);
    }
    // Every role may read orders; whose is another question.
    if is_command || path.starts_with("/v1/stock/") {
        codes.push(Code::Forbidden);
    }
    if is_command && path.contains('{') {
        codes.push(Code::PreconditionFailed);
    }
    match (path.starts_with("/v1/orders/{id}"), path.starts_with("/v1/stock/"), is_command) {
        (true, _, true) => codes.extend([Code::OrderNotFound, Code::IllegalTransition]),
        (true, _, false) => codes.push(Code::OrderNotFound),
        (_, true, true) => codes.push(Code::StockBounds),
        (_, true, false) => codes.push(Code::StockNotFound),
        _ => {}
    }
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in Code::ALL.iter().filter(|code| codes.contains(code)) {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    by_status
}

fn problem_response(codes: &[Code]) -> Value {
    let titles: Vec<_> = codes.iter().map(|code| code.title()).collect();
    let example = |code: &Code| (code.as_str().to_owned(), json!({"$ref": format!("#/components/examples/{}", code.as_str())}));
    let examples: Map<String, Value> = codes.iter().map(example).collect();
    let mut headers = vec!["X-Request-Id", "Cache-Control"];
    headers.extend(codes.iter().all(|code| code.has_retry_after()).then_some("Retry-After"));
    headers.extend(codes.contains(&Code::Unauthenticated).then_some("WWW-Authenticate"));
    let mut headers = header_references(&headers);
    if codes.contains(&Code::Conflict) {
        headers["Retry-After"] = json!({"$ref": "#/components/headers/Retry-After-Conflict"});
    }
    json!({
        "description": format!("{}.", titles.join("; or: ")),
        "headers": headers,
        "content": {PROBLEM_CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}},
    })
}

fn problem_example(code: Code) -> Value {
    let errors = match code {
        Code::InvalidParameter => json!([{
            "parameter": "sku", "detail": "a SKU must be 1 to 64 letters, digits, '_' or '-', not \"a.b\"", "code": "wrong-format",
        }]),
        Code::InvalidHeader => {
            json!([{"header": "Idempotency-Key", "detail": "is missing; every POST needs one", "code": "missing"}])
        }
        Code::InvalidJson => json!([{
            "pointer": "", "detail": "expected `,` or `}` at line 3 column 5", "code": "syntax", "line": 3, "column": 5,
        }]),
        Code::InvalidFields => json!([
            {"pointer": "/customer/email", "detail": "is missing", "code": "missing"},
            {"pointer": "/lines/0/quantity", "detail": "must be 1 to 1000000", "code": "out-of-range"},
        ]),
        _ => json!([]),
    };
    let value = json!({
        "type": format!("/problems/{}", code.as_str()), "title": code.title(), "status": code.status().as_u16(),
        "detail": code.explanation(), "code": code.as_str(), "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "errors": errors,
    });
    json!({"summary": code.title(), "description": code.explanation(), "value": value})
}

fn path_parameters(path: &str) -> Vec<Value> {
    let parameter = |name: &str, description: &str, schema: Value, example: &str| json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema, "example": example});
    if path.contains("{id}") {
        let schema = json!({"type": "string", "format": "uuid", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"});
        vec![parameter("id", "The order's id.", schema, "3b0e4f6c-5d2a-5c1e-8f7b-0a9d8c7b6a50")]
    } else if path.contains("{sku}") {
        let schema = json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"});
        vec![parameter("sku", "The stock keeping unit.", schema, "TEA-1")]
    } else if path.contains("{code}") {
        let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        vec![parameter("code", "The problem's code.", json!({"type": "string", "enum": codes}), "invalid-fields")]
    } else {
        vec![]
    }
}

/// The request headers. Without examples where the same value again would mean something else.
fn parameters() -> Value {
    let header = |name: &str, required: bool, description: &str, schema: Value| json!({"name": name, "in": "header", "required": required, "description": description, "schema": schema});
    let with_example = |mut header: Value, example: &str| {
        header["example"] = example.into();
        header
    };
    // A key in quotes is as long as it is without them and without its escapes. Any text is taken for the names that follow: what is no
    // name is replaced or left out.
    let most = IDEMPOTENCY_KEY_CHARS_MAX;
    let (bare, quoted) = (format!("[!#-~][!-~]{{0,{}}}", most - 1), format!(r#""([!#-\[\]-~]|\\["\\]){{1,{most}}}""#));
    let key = json!({"type": "string", "pattern": format!("^({bare}|{quoted})$")});
    let tag = r#"(W/)?"[!#-~]*""#;
    let tags = json!({"type": "string", "minLength": 1, "pattern": format!(r"^(\*|[ \t,]*{tag}([ \t]*,[ \t,]*{tag})*([ \t]*,[ \t,]*)?)$")});
    let text = json!({"type": "string"});
    json!({
        "IdempotencyKey": header(
            "Idempotency-Key", true,
            "The client's name for this command: 1 to 255 visible ASCII characters, bare (`order-4711`) or as a quoted string. Send the \
             same key with every retry.",
            key,
        ),
        "IfMatch": header(
            "If-Match", false,
            "Carry the command out only on one of these versions: entity tags as `ETag` gave them (`\"3\"`), or `*`. A retry of a \
             command that was carried out is answered whatever it says, and so is a command that \
             asks an order for what is so already.",
            tags.clone(),
        ),
        "CommandIfNoneMatch": header(
            "If-None-Match", false,
            "Do not carry the command out on one of these versions, or with `*` on none that exists. A retry of a command that was carried \
             out is answered whatever it says.",
            tags,
        ),
        "IfNoneMatch": header(
            "If-None-Match", false, "Answer 304 if the version is still one of these entity tags (`\"3\"`).", text.clone(),
        ),
        "RequestId": with_example(header(
            "X-Request-Id", false,
            "The client's name for this request, 1 to 128 visible ASCII characters; it comes back with the answer. Any other is replaced.",
            text.clone(),
        ), "r-1"),
        "CorrelationId": with_example(header(
            "X-Correlation-Id", false,
            "The client's name for the story that the command belongs to, 1 to 128 visible ASCII characters; kept with the event. Any \
             other is left out.",
            text.clone(),
        ), "cart-99"),
        "Traceparent": with_example(header(
            "traceparent", false,
            "W3C Trace Context; kept with the event, and its trace id names problems. One that is malformed is replaced.",
            text,
        ), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    })
}

/// The response headers.
fn headers() -> Value {
    let header = |description: &str, required: bool, schema: Value, example: Value| json!({"description": description, "required": required, "schema": schema, "example": example});
    let string = json!({"type": "string"});
    json!({
        "ETag": header("The version, quoted.", true, json!({"type": "string", "pattern": "^\"[0-9]+\"$"}), json!("\"3\"")),
        "Location": header("The order's path.", true, json!({"type": "string", "format": "uri-reference"}),
            json!("/v1/orders/3b0e4f6c-5d2a-5c1e-8f7b-0a9d8c7b6a50")),
        "Idempotent-Replayed": header("Present if this is the first answer again.", false, json!({"type": "string", "const": "true"}),
            json!("true")),
        "Retry-After": header("Seconds until a retry makes sense.", true, json!({"type": "integer", "minimum": 0}), json!(RETRY_AFTER_S)),
        "Retry-After-Conflict": header("Seconds until a retry makes sense; only with the code `conflict`.", false,
            json!({"type": "integer", "minimum": 0}), json!(RETRY_AFTER_S)),
        "WWW-Authenticate": header("How to say who one is (RFC 6750).", true, string.clone(), json!("Bearer realm=\"contrail\"")),
        "X-Request-Id": header("The request's `X-Request-Id`, or a new one.", true, string.clone(), json!("r-1")),
        "Cache-Control": header("Answers are never cached.", true, string, json!("no-store")),
    })
}

fn header_references(names: &[&str]) -> Value {
    let reference = |name: &&str| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")}));
    Value::Object(names.iter().map(reference).collect())
}
