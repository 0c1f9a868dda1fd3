-- The read models. Everything here can be rebuilt from the log with `projectors replay`.
--
-- Indexes have no names of their own on purpose: a replay copies a table with LIKE … INCLUDING ALL, which names the
-- copies by the same default rule, so that an index is called the same before and after a replay.

-- One row per order. (view_id, version, payload) is the shape that postgres_es::PostgresViewRepository expects; the
-- other columns repeat parts of the payload so that they can be filtered and sorted by.
CREATE TABLE contrail.orders (
    view_id text PRIMARY KEY,
    version bigint NOT NULL,
    payload json NOT NULL,
    status text NOT NULL,
    payment_status text NOT NULL,
    customer_id text NOT NULL,
    placed_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    position bigint NOT NULL,
    total_minor bigint NOT NULL,
    currency text NOT NULL
);
CREATE INDEX ON contrail.orders (placed_at DESC, view_id);
CREATE INDEX ON contrail.orders (status, placed_at DESC, view_id);
CREATE INDEX ON contrail.orders (customer_id, placed_at DESC, view_id);
CREATE INDEX ON contrail.orders (position);

-- One row per SKU; view_id is the SKU.
CREATE TABLE contrail.inventory (
    view_id text PRIMARY KEY,
    version bigint NOT NULL,
    payload json NOT NULL,
    on_hand bigint NOT NULL,
    reserved bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    position bigint NOT NULL
);

-- One row per event: the stored bytes as they are, their leaf hash, and what one searches by.
CREATE TABLE contrail.audit (
    position bigint PRIMARY KEY,
    event_id uuid NOT NULL,
    event_type text NOT NULL,
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    version bigint NOT NULL,
    time timestamptz NOT NULL,
    actor text,
    correlation_id text NOT NULL,
    causation_id text,
    trace_id text,
    bytes bytea NOT NULL,
    leaf_hash bytea NOT NULL
);
CREATE INDEX ON contrail.audit (aggregate_type, aggregate_id, version);
CREATE INDEX ON contrail.audit (event_id);
CREATE INDEX ON contrail.audit (event_type, position);
CREATE INDEX ON contrail.audit (correlation_id);
CREATE INDEX ON contrail.audit (time);

-- Signed tree heads (C2SP tlog-checkpoint). Never rebuilt and never changed: what was signed stays signed.
CREATE TABLE contrail.audit_checkpoints (
    size bigint PRIMARY KEY,
    root bytea NOT NULL,
    note text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- One row per projection: how far it is, and why it stands still if it does.
CREATE TABLE contrail.projections (
    name text PRIMARY KEY,
    -- The last event that is applied; 0 before the first.
    position bigint NOT NULL DEFAULT 0,
    -- The last event of the log, as far as the projection has seen.
    head bigint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'halted')),
    updated_at timestamptz NOT NULL DEFAULT now(),
    halt_position bigint,
    halt_event_type text,
    halt_reason text,
    halted_at timestamptz,
    -- Of the audit tree: the roots of the perfect subtrees that make up its first `position` leaves, largest first.
    frontier bytea,
    CHECK ((state = 'halted') = (halt_position IS NOT NULL AND halt_reason IS NOT NULL AND halted_at IS NOT NULL))
);
INSERT INTO contrail.projections (name) VALUES ('orders'), ('inventory'), ('audit');
