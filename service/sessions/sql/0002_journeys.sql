-- Where a contact's journeys are: the onboarding, and the sale of each deal. A journey outlives sessions, so its
-- thread is its own; the checkpoint on that thread says how far it is.
CREATE TABLE sessions.journeys (
    tenant text NOT NULL,
    contact_id text NOT NULL,
    graph text NOT NULL,
    -- What the journey is about: the opportunity's id; for the onboarding the contact's.
    subject text NOT NULL,
    thread_id text NOT NULL,
    -- The session in which it was continued last; empty: it was begun outside of any.
    session_id text NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, contact_id, graph, subject)
);
CREATE INDEX journeys_by_thread ON sessions.journeys (thread_id);

-- The journey's thread that answers a message, where the session's own does not.
ALTER TABLE sessions.messages ADD COLUMN journey_thread_id text NOT NULL DEFAULT '';
