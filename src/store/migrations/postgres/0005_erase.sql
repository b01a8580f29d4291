-- A deleted room has `deleted` = 2 until its entries, keys and members are
-- erased, slice by slice, and 1 from then on.
CREATE INDEX room_to_erase ON room ("partition", room) WHERE deleted = 2;

-- Nothing of what was there changed: a release that knows the schema up to 4
-- still runs on this one, slower where rooms are erased.
INSERT INTO meta (key, value) VALUES ('schema_needs', '4')
ON CONFLICT (key) DO UPDATE SET value = excluded.value;
