-- Events that a projection goes past without applying them, because somebody has decided so. Never rebuilt: a replay goes past the
-- same events.
CREATE TABLE contrail.skips (
    projection text NOT NULL,
    position bigint NOT NULL,
    -- As far as it could be read.
    event_type text,
    -- Why it could not be applied.
    halt_reason text NOT NULL,
    -- Why it need not be.
    reason text NOT NULL,
    -- The role that said so.
    skipped_by text NOT NULL DEFAULT session_user,
    skipped_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, position)
);

-- Another entry that every event pays for and no query reads: nobody asks for an event by its id.
DROP INDEX contrail.audit_event_id_idx;

-- An aggregate's events are wanted in the order of the log, and its id alone finds them.
DROP INDEX contrail.audit_aggregate_type_aggregate_id_version_idx;
CREATE INDEX ON contrail.audit (aggregate_id, position);
