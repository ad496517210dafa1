-- People and what they told: the first schema.
--
-- `examples` is the truth; `user_states` and `predictions` are derived from it and kept so that nobody waits. Everything
-- of a person hangs on their row in `users` and falls with it. Every key begins with the tenant.
--
-- Times are microseconds since 1970 in UTC. Numbers of 64 bits without sign (`state_version`, names of texts) are kept as
-- the same bits with sign. Embeddings and states are little-endian f32. A table of short rows is its own primary key
-- (WITHOUT ROWID); one of long rows is not, as its index would hold them. In `examples` the numbers stand before the
-- texts, so that what a head learns is read without walking the pages of a text.

CREATE TABLE tenants (
    tenant_id  TEXT    NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO tenants (tenant_id, created_at)
VALUES ('default', CAST(strftime('%s', 'now') AS INTEGER) * 1000000);

CREATE TABLE users (
    tenant_id     TEXT    NOT NULL REFERENCES tenants (tenant_id),
    user_id       TEXT    NOT NULL,
    state_version INTEGER NOT NULL,
    examples      INTEGER NOT NULL CHECK (examples >= 0),
    next_position INTEGER NOT NULL CHECK (next_position >= 0),
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE user_attributes (
    tenant_id TEXT NOT NULL,
    user_id   TEXT NOT NULL,
    key       TEXT NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (tenant_id, user_id, key),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX user_attributes_by_value ON user_attributes (tenant_id, key, value, user_id);

CREATE TABLE examples (
    tenant_id        TEXT    NOT NULL,
    user_id          TEXT    NOT NULL,
    example_id       TEXT    NOT NULL,
    position         INTEGER NOT NULL CHECK (position >= 0),
    strength         REAL    NOT NULL,
    label_confidence REAL    NOT NULL,
    chosen_name      INTEGER NOT NULL,
    rejected_name    INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    prompt           TEXT    NOT NULL,
    chosen           TEXT    NOT NULL,
    rejected         TEXT    NOT NULL,
    rationale        TEXT,
    PRIMARY KEY (tenant_id, user_id, example_id),
    UNIQUE (tenant_id, user_id, position),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id) ON DELETE CASCADE
) STRICT;

CREATE TABLE example_embeddings (
    tenant_id  TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    example_id TEXT NOT NULL,
    backbone   TEXT NOT NULL,
    form       TEXT NOT NULL CHECK (form IN ('prompt_response', 'prompt', 'response')),
    chosen     BLOB NOT NULL,
    rejected   BLOB NOT NULL,
    PRIMARY KEY (tenant_id, user_id, example_id, backbone, form),
    FOREIGN KEY (tenant_id, user_id, example_id)
        REFERENCES examples (tenant_id, user_id, example_id) ON DELETE CASCADE
) STRICT;

CREATE TABLE user_states (
    tenant_id     TEXT    NOT NULL,
    user_id       TEXT    NOT NULL,
    model_key     BLOB    NOT NULL,
    model         TEXT    NOT NULL,
    state_version INTEGER NOT NULL,
    examples      INTEGER NOT NULL CHECK (examples >= 0),
    mean          BLOB    NOT NULL,
    covariance    BLOB    NOT NULL,
    PRIMARY KEY (tenant_id, user_id, model_key),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id) ON DELETE CASCADE
) STRICT;

CREATE TABLE predictions (
    tenant_id             TEXT    NOT NULL,
    user_id               TEXT    NOT NULL,
    example_id            TEXT    NOT NULL,
    model                 TEXT    NOT NULL,
    shot                  INTEGER NOT NULL CHECK (shot >= 0),
    preference            REAL    NOT NULL,
    population_preference REAL    NOT NULL,
    created_at            INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, user_id, example_id, model),
    FOREIGN KEY (tenant_id, user_id, example_id)
        REFERENCES examples (tenant_id, user_id, example_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- How often each model was right about each person; an undecided prediction counts one half.
CREATE VIEW prediction_tallies AS
SELECT tenant_id,
       user_id,
       model,
       count(*) AS predictions,
       sum(CASE WHEN preference > 0.5 THEN 1.0 WHEN preference = 0.5 THEN 0.5 ELSE 0.0 END) AS correct,
       sum(CASE WHEN population_preference > 0.5 THEN 1.0 WHEN population_preference = 0.5 THEN 0.5 ELSE 0.0 END)
           AS population_correct
  FROM predictions
 GROUP BY tenant_id, user_id, model;

CREATE TABLE api_keys (
    key_id     BLOB    NOT NULL PRIMARY KEY,
    tenant_id  TEXT    NOT NULL REFERENCES tenants (tenant_id),
    key_hash   BLOB    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    scopes     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency_keys (
    tenant_id       TEXT    NOT NULL,
    idempotency_key TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    request_hash    BLOB    NOT NULL,
    status          INTEGER NOT NULL,
    body            TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, idempotency_key),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id) ON DELETE CASCADE
) STRICT;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_by_user ON idempotency_keys (tenant_id, user_id);

-- No reference to people or tenants: it outlives them, and holds nothing that tells who they were.
CREATE TABLE audit_log (
    audit_id     BLOB    NOT NULL PRIMARY KEY,
    tenant_id    TEXT,
    at           INTEGER NOT NULL,
    key_id       BLOB,
    action       TEXT    NOT NULL,
    subject_hash BLOB,
    row_count    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX audit_log_by_age ON audit_log (at);
