-- What orders are found and sorted by, besides who placed them, when, and where they stand.

-- What begins with a text is a range of an index if the index is in the order of the bytes, whatever the database's own order is.
ALTER TABLE contrail.orders ALTER COLUMN view_id TYPE text COLLATE "C", ALTER COLUMN customer_id TYPE text COLLATE "C";
ALTER TABLE contrail.inventory ALTER COLUMN view_id TYPE text COLLATE "C";

-- Which SKUs an order has lines of, each once, sorted. No default: a projector of an older build, which does not know the column, is to
-- wait until it is replaced, rather than to write orders that cannot be found.
ALTER TABLE contrail.orders ADD COLUMN skus text[];
UPDATE contrail.orders
SET skus = ARRAY(SELECT DISTINCT (line ->> 'sku') COLLATE "C" FROM json_array_elements(payload -> 'lines') AS line ORDER BY 1);
ALTER TABLE contrail.orders ALTER COLUMN skus SET NOT NULL;
-- What comes in is gathered before it is filed. Every search reads what is gathered, so that is kept small (in kB).
CREATE INDEX ON contrail.orders USING gin (skus) WITH (gin_pending_list_limit = 512);

CREATE INDEX ON contrail.orders (updated_at, view_id);

-- Most orders are paid, and never come by here.
CREATE INDEX ON contrail.orders (payment_status, placed_at DESC, view_id) WHERE payment_status IN ('DECLINED', 'REFUNDED');
