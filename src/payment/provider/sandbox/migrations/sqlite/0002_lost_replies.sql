-- Whether the first reply to everything done to a charge is lost, and how often
-- each request arrived.
ALTER TABLE charge ADD COLUMN lossy INTEGER NOT NULL DEFAULT 0;
ALTER TABLE action ADD COLUMN received INTEGER NOT NULL DEFAULT 1;
