-- People, their examples, and what was derived of both.
--
-- Every statement names its tenant; row-level security is a second fence behind that: a connection sees the rows of
-- the tenant in the setting `polyreward.tenant` and, before that is set, none. FORCE holds the owner to it as well,
-- since the server is the owner. Foreign keys bypass it, as PostgreSQL has them do. Superusers and roles with BYPASSRLS
-- see over it: the server should be neither.
--
-- Text is compared by its bytes (COLLATE "C"), so that pages follow one order on every server.

CREATE TABLE tenants (
    tenant_id TEXT COLLATE "C" PRIMARY KEY,
    created_at TIMESTAMPTZ NOT NULL
);

-- The tenant of a server without keys.
INSERT INTO tenants (tenant_id, created_at) VALUES ('default', now());

-- `state_version` is a digest: all 64 bits of it, read as signed.
CREATE TABLE users (
    tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants,
    user_id TEXT COLLATE "C" NOT NULL,
    state_version BIGINT NOT NULL,
    examples BIGINT NOT NULL,
    next_position BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (tenant_id, user_id)
);

CREATE TABLE user_attributes (
    tenant_id TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_id, user_id, key),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users ON DELETE CASCADE
);

CREATE INDEX user_attributes_by_value ON user_attributes (tenant_id, key, value, user_id);

-- The truth. `prompt` is JSON, a text or a chat; the names are digests as `state_version` is.
CREATE TABLE examples (
    tenant_id TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    example_id TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    prompt TEXT COLLATE "C" NOT NULL,
    chosen TEXT COLLATE "C" NOT NULL,
    rejected TEXT COLLATE "C" NOT NULL,
    strength DOUBLE PRECISION NOT NULL,
    label_confidence DOUBLE PRECISION NOT NULL,
    rationale TEXT COLLATE "C",
    chosen_name BIGINT NOT NULL,
    rejected_name BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (tenant_id, user_id, example_id),
    UNIQUE (tenant_id, user_id, position),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users ON DELETE CASCADE
);

-- 32-bit floats, the least significant byte first; they do not compress.
CREATE TABLE example_embeddings (
    tenant_id TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    example_id TEXT COLLATE "C" NOT NULL,
    backbone TEXT COLLATE "C" NOT NULL,
    form TEXT COLLATE "C" NOT NULL CHECK (form IN ('prompt_response', 'prompt', 'response')),
    chosen BYTEA NOT NULL,
    rejected BYTEA NOT NULL,
    PRIMARY KEY (tenant_id, user_id, example_id, backbone, form),
    FOREIGN KEY (tenant_id, user_id, example_id) REFERENCES examples ON DELETE CASCADE
);

ALTER TABLE example_embeddings
    ALTER COLUMN chosen SET STORAGE EXTERNAL,
    ALTER COLUMN rejected SET STORAGE EXTERNAL;

-- What models believe: derived, and only as good as its `state_version`.
CREATE TABLE user_states (
    tenant_id TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    model_key BYTEA NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    state_version BIGINT NOT NULL,
    examples BIGINT NOT NULL,
    mean BYTEA NOT NULL,
    covariance BYTEA NOT NULL,
    PRIMARY KEY (tenant_id, user_id, model_key),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users ON DELETE CASCADE
);

ALTER TABLE user_states
    ALTER COLUMN mean SET STORAGE EXTERNAL,
    ALTER COLUMN covariance SET STORAGE EXTERNAL;

CREATE TABLE predictions (
    tenant_id TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    example_id TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    shot BIGINT NOT NULL,
    preference DOUBLE PRECISION NOT NULL,
    population_preference DOUBLE PRECISION NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (tenant_id, user_id, example_id, model),
    FOREIGN KEY (tenant_id, user_id, example_id) REFERENCES examples ON DELETE CASCADE
);

-- How often a model was right: a preference of one half is half a success.
CREATE VIEW prediction_tallies AS
SELECT tenant_id,
       user_id,
       model,
       count(*) AS predictions,
       sum((sign(preference - 0.5) + 1) / 2) AS correct,
       sum((sign(population_preference - 0.5) + 1) / 2) AS population_correct
  FROM predictions
 GROUP BY tenant_id, user_id, model;

-- First answers to requests that may be repeated.
CREATE TABLE idempotency_keys (
    tenant_id TEXT COLLATE "C" NOT NULL,
    idempotency_key TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    request_hash BYTEA NOT NULL,
    status INTEGER NOT NULL,
    body TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (tenant_id, idempotency_key),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users ON DELETE CASCADE
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (tenant_id, created_at);
CREATE INDEX idempotency_keys_by_user ON idempotency_keys (tenant_id, user_id);

-- Who did what to whom, without content: people are digests here, and so outlive their erasure. A line without a
-- tenant is about the server.
CREATE TABLE audit_log (
    audit_id UUID PRIMARY KEY,
    tenant_id TEXT COLLATE "C",
    at TIMESTAMPTZ NOT NULL,
    key_id UUID,
    action TEXT COLLATE "C" NOT NULL,
    subject_hash BYTEA,
    row_count BIGINT NOT NULL
);

CREATE INDEX audit_log_by_age ON audit_log (tenant_id, at);

-- No row-level security on keys and tenants: they are looked up to learn which tenant it is.
CREATE TABLE api_keys (
    key_id UUID PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants,
    key_hash BYTEA NOT NULL UNIQUE,
    name TEXT COLLATE "C" NOT NULL,
    scopes TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    revoked_at TIMESTAMPTZ
);

ALTER TABLE users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE user_attributes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE examples ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE example_embeddings ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE user_states ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE predictions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY of_tenant ON users USING (tenant_id = current_setting('polyreward.tenant', true));
CREATE POLICY of_tenant ON user_attributes USING (tenant_id = current_setting('polyreward.tenant', true));
CREATE POLICY of_tenant ON examples USING (tenant_id = current_setting('polyreward.tenant', true));
CREATE POLICY of_tenant ON example_embeddings USING (tenant_id = current_setting('polyreward.tenant', true));
CREATE POLICY of_tenant ON user_states USING (tenant_id = current_setting('polyreward.tenant', true));
CREATE POLICY of_tenant ON predictions USING (tenant_id = current_setting('polyreward.tenant', true));
CREATE POLICY of_tenant ON idempotency_keys USING (tenant_id = current_setting('polyreward.tenant', true));
CREATE POLICY of_tenant ON audit_log USING (tenant_id = current_setting('polyreward.tenant', true));
-- Lines of every tenant, and of none, may be added.
CREATE POLICY any_line ON audit_log FOR INSERT WITH CHECK (true);
