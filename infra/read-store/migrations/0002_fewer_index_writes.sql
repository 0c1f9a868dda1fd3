-- What every event pays for on its way in, and no query reads.

-- Orders are paged by the time at which they were placed, never by position; and each of an order's events moves this entry.
DROP INDEX contrail.orders_position_idx;

-- Events are stored in the order of their times, or nearly so: a range of times is a range of pages.
DROP INDEX contrail.audit_time_idx;
CREATE INDEX ON contrail.audit USING brin (time);
