-- Closed sessions are summarised by jobs of the task queue.
ALTER TABLE sessions.sessions DROP COLUMN leased_until;
