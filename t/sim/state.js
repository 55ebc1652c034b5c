/*
 * What the simulated Nango remembers: integrations, connect sessions and
 * connections of one environment, its API keys and its signing keys.  All of
 * it is in memory.  Nothing here speaks HTTP or sends anything; every change
 * of a connection goes through one of the methods below.
 */

'use strict';

const crypto = require('node:crypto');

const { rowDate, apiDate } = require('./clock');
const { storedOrder } = require('./tags');

const TOKEN_PREFIX = 'nango_connect_session_';
const TOKEN_LIFE = 30 * 60 * 1000;
const ACCESS_TOKEN_LIFE = 60 * 60 * 1000;

const INTEGRATIONS = [
    { id: 'github', provider: 'github', auth_mode: 'OAUTH2',
      display_name: 'GitHub' },
    { id: 'slack', provider: 'slack', auth_mode: 'OAUTH2',
      display_name: 'Slack' },
    { id: 'test-apikey', provider: 'airtable-pat', auth_mode: 'API_KEY',
      display_name: 'Airtable (Personal Access Token)' },
    { id: 'test-none', provider: 'unauthenticated', auth_mode: 'NONE',
      display_name: 'Unauthenticated' },
    { id: 'test-oauth2', provider: 'local-oauth2', auth_mode: 'OAUTH2',
      display_name: 'Local OAuth2' },
];


function newestFirst(a, b) {
    return b.created - a.created || b.id - a.id;
}


function random(bytes) {
    return crypto.randomBytes(bytes).toString('hex');
}


class State {
    constructor({ clock, apiKeys, signingKey, integrations }) {
        this.clock = clock;
        this.initial = { apiKeys, signingKey,
                         integrations: integrations || INTEGRATIONS };
        this.reset();
    }

    reset() {
        this.apiKeys = new Set(this.initial.apiKeys);
        this.signingKey = this.initial.signingKey;
        this.previousSigningKey = null;
        this.integrations = new Map();
        this.sessions = new Map();
        this.begun = new Map();
        this.connections = new Map();
        this.byTag = new Map();
        this.rows = [];
        this.sorted = true;
        this.gone = 0;
        this.lastId = 0;

        /* Values that the next sessions and connections get: for tests. */
        this.next = { tokens: [], connection_ids: [], signing_keys: [] };

        for (const integration of this.initial.integrations) {
            this.addIntegration(integration);
        }
    }

    /* Integrations */

    addIntegration({ id, provider, auth_mode, display_name, logo }) {
        const at = new Date(this.clock.now()).toISOString();

        this.integrations.set(id, {
            id,
            provider: provider || id,
            auth_mode: auth_mode || 'OAUTH2',
            display_name: display_name || id,
            logo: logo || null,
            created_at: at,
            updated_at: at,
        });
    }

    /* Signing keys: a delivery takes the key of the moment it begins. */

    rotateSigningKey() {
        this.previousSigningKey = this.signingKey;
        this.signingKey = this.next.signing_keys.shift()
                          || crypto.randomUUID();

        return this.signingKey;
    }

    /* Sessions */

    addSession(session) {
        const token = this.next.tokens.shift() || TOKEN_PREFIX + random(32);
        const stored = {
            ...session,
            token,
            expires: this.clock.now() + TOKEN_LIFE,
        };

        this.sessions.set(token, stored);
        this.sweepSessions();

        return stored;
    }

    /* Sessions are in the order of their end: stop at the first live one. */
    sweepSessions() {
        for (const [token, session] of this.sessions) {
            if (session.expires > this.clock.now()) {
                return;
            }

            this.sessions.delete(token);
        }
    }

    session(token) {
        const session = this.sessions.get(token);

        return session && session.expires > this.clock.now() ? session : null;
    }

    deleteSession(token) {
        this.sessions.delete(token);
    }

    /* Connections */

    key(integration, connectionId) {
        return `${integration}\u0000${connectionId}`;
    }

    connection(integration, connectionId) {
        return this.connections.get(this.key(integration, connectionId))
               || null;
    }

    newConnectionId() {
        return this.next.connection_ids.shift() || crypto.randomUUID();
    }

    credentials(integration) {
        switch (integration.auth_mode) {
        case 'API_KEY':
            return { type: 'API_KEY', apiKey: `sim-${random(12)}` };
        case 'BASIC':
            return { type: 'BASIC', username: 'sim', password: random(12) };
        case 'OAUTH2':
            return this.oauthCredentials();
        default:
            return {};
        }
    }

    oauthCredentials() {
        const token = `sim-access-${random(16)}`;
        const refresh = `sim-refresh-${random(16)}`;
        const expires = new Date(this.clock.now() + ACCESS_TOKEN_LIFE);

        return {
            type: 'OAUTH2',
            access_token: token,
            refresh_token: refresh,
            expires_at: expires.toISOString(),
            raw: {
                access_token: token,
                refresh_token: refresh,
                token_type: 'bearer',
                expires_in: ACCESS_TOKEN_LIFE / 1000,
            },
        };
    }

    /*
     * values may fix anything, ids and dates included; what it leaves out is
     * made up.  The same ids again replace the connection.
     */
    addConnection(integration, values) {
        const now = this.clock.now();
        const database = integration.auth_mode === 'NONE';
        const connection = {
            id: values.id || this.lastId + 1,
            connection_id: values.connection_id || this.newConnectionId(),
            integration: integration.id,
            provider: integration.provider,
            auth_mode: integration.auth_mode,
            end_user: values.end_user || null,
            tags: {},
            metadata: values.metadata || {},
            connection_config: values.connection_config || {},
            webhook_url_override: values.webhook_url_override || null,
            created: values.created_micros
                     || (values.created && Date.parse(values.created) * 1000)
                     || (database ? this.clock.micros() : now * 1000),
            updated: values.updated ? Date.parse(values.updated) : now,
            last_fetched: null,
            credentials: values.credentials || this.credentials(integration),
            errors: values.errors || [],
            refusal: null,
            deleted: false,
        };

        this.remove(this.connection(integration.id, connection.connection_id));

        const last = this.rows[this.rows.length - 1];

        if (last && newestFirst(last, connection) < 0) {
            this.sorted = false;
        }

        this.lastId = Math.max(this.lastId, connection.id);
        this.connections.set(this.key(integration.id,
                                      connection.connection_id), connection);
        this.rows.push(connection);
        this.setTags(connection, values.tags || {});

        return connection;
    }

    setTags(connection, tags) {
        this.indexTags(connection, false);
        connection.tags = storedOrder(tags);
        this.indexTags(connection, true);
    }

    indexTags(connection, add) {
        for (const [tag, value] of Object.entries(connection.tags)) {
            const key = `${tag}\u0000${value}`;
            let set = this.byTag.get(key);

            if (add) {
                if (!set) {
                    set = new Set();
                    this.byTag.set(key, set);
                }

                set.add(connection);

            } else if (set) {
                set.delete(connection);

                if (set.size === 0) {
                    this.byTag.delete(key);
                }
            }
        }
    }

    /* Authorised anew: whatever was wrong with the credentials is not. */
    override(connection, values) {
        connection.updated = this.clock.now();
        connection.errors = [];
        connection.refusal = null;
        connection.credentials = values.credentials
            || this.credentials(this.integrations.get(connection.integration));

        if (values.connection_config) {
            connection.connection_config = values.connection_config;
        }

        if (values.end_user) {
            connection.end_user = values.end_user;
        }

        if (values.webhook_url_override) {
            connection.webhook_url_override = values.webhook_url_override;
        }

        this.setTags(connection, values.tags);
    }

    fail(connection, refusal) {
        connection.refusal = refusal;
        connection.errors = [{ type: 'auth', log_id: random(10) }];
    }

    recover(connection) {
        connection.refusal = null;
        connection.errors = [];
    }

    remove(connection) {
        if (!connection) {
            return;
        }

        connection.deleted = true;
        this.gone++;
        this.indexTags(connection, false);
        this.connections.delete(this.key(connection.integration,
                                         connection.connection_id));
    }

    /* Oldest first, without the deleted ones. */
    order() {
        if (this.gone > 0 && this.gone * 4 > this.rows.length) {
            this.rows = this.rows.filter((row) => !row.deleted);
            this.gone = 0;
        }

        if (!this.sorted) {
            this.rows.sort((a, b) => newestFirst(b, a));
            this.sorted = true;
        }

        return this.rows;
    }

    /* The rows to look through for a filter: by the rarest of its tags. */
    candidates(tags) {
        let rarest = null;

        for (const [tag, value] of Object.entries(tags || {})) {
            const set = this.byTag.get(`${tag}\u0000${value}`) || new Set();

            if (!rarest || set.size < rarest.size) {
                rarest = set;
            }
        }

        return rarest ? [...rarest].sort((a, b) => newestFirst(b, a))
                      : this.order();
    }

    /*
     * A page is counted over what is there at that moment, so rows that go
     * between two pages make others skip.
     */
    list({ tags, limit, page, matches }) {
        const rows = this.candidates(tags);
        const wanted = Object.entries(tags || {});
        const found = [];
        let skip = (page || 0) * limit;

        for (let i = rows.length - 1; i >= 0 && found.length < limit; i--) {
            const row = rows[i];

            if (row.deleted
                || !wanted.every(([tag, value]) => row.tags[tag] === value)
                || (matches && !matches(row)))
            {
                continue;
            }

            if (skip > 0) {
                skip--;
                continue;
            }

            found.push(row);
        }

        return found;
    }
}


/* A connection as a list of the API shows it. */
function listed(connection) {
    return {
        id: connection.id,
        connection_id: connection.connection_id,
        provider_config_key: connection.integration,
        provider: connection.provider,
        errors: connection.errors,
        end_user: connection.end_user,
        tags: connection.tags,
        metadata: connection.metadata,
        created: rowDate(connection.created),
    };
}


/* A connection by itself, with its credentials unless refused. */
function single(connection, credentials) {
    const { created, ...head } = listed(connection);

    return {
        ...head,
        connection_config: connection.connection_config,
        webhook_url_override: connection.webhook_url_override,
        created_at: apiDate(Math.floor(connection.created / 1000)),
        updated_at: apiDate(connection.updated),
        last_fetched_at: connection.last_fetched === null
                         ? null : apiDate(connection.last_fetched),
        credentials,
    };
}


module.exports = { State, TOKEN_PREFIX, INTEGRATIONS, listed, single };
