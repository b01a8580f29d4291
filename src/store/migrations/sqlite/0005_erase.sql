-- A deleted room has `deleted` = 2 until its entries, keys and members are
-- erased, slice by slice, and 1 from then on.
CREATE INDEX room_to_erase ON room ("partition", room) WHERE deleted = 2;
