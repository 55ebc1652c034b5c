/*
 * What users and providers do to connections: authorise, refuse, let a token
 * go bad, mend it, delete.  One function an act; the state changes first, the
 * webhook follows.  An act that Nango would refuse throws a Refused with the
 * status and the code of its answer.
 */

'use strict';

const DENIED = {
    type: 'invalid_callback',
    description: 'Did not get authorization code in the callback. Provider '
                 + 'error: error: access_denied; error_description: '
                 + 'user said no',
};

const REFRESH_ERROR = {
    type: 'refresh_token_external_error',
    description: 'The external API returned an error when trying to refresh '
                 + 'the access token. Please try again later.',
};


class Refused extends Error {
    constructor(status, code, message) {
        super(message || code);
        this.status = status;
        this.code = code;
    }
}


/* What the session lets one authorise, by name or because there is one. */
function choose(state, session, id) {
    const allowed = session.allowed_integrations;
    const name = id || (allowed && allowed.length === 1 ? allowed[0] : null);
    const integration = state.integrations.get(name);

    if (!integration) {
        throw new Refused(404, 'unknown_provider_config');
    }

    if (allowed && !allowed.includes(name)) {
        throw new Refused(400, 'integration_not_allowed');
    }

    return integration;
}


function sessionOf(state, token) {
    const session = state.session(token);

    if (!session) {
        throw new Refused(401, 'unknown_connect_session_token');
    }

    return session;
}


/* The integration that this session's user may authorise. */
function permitted(sim, { token, integration }) {
    return choose(sim.state, sessionOf(sim.state, token), integration);
}


/* The connection that a reconnect session is about, or null. */
function reconnected(state, session) {
    if (!session.reconnect) {
        return null;
    }

    if (session.reconnect.deleted) {
        throw new Refused(400, 'invalid_connection');
    }

    return session.reconnect;
}


/*
 * The user went through with it.  A reconnect session overrides its
 * connection, tags and all: without tags in the session it has none after.
 */
function connect(sim, { token, integration: id, then, ...values }) {
    const { state, events } = sim;
    const session = sessionOf(state, token);
    const integration = choose(state, session, id);
    const defaults = (session.integrations_config_defaults
                      || {})[integration.id] || {};
    const merged = {
        ...values,
        tags: session.tags,
        end_user: session.end_user,
        webhook_url_override: session.webhook_url_override,
        connection_config: values.connection_config
                           || defaults.connection_config,
    };
    const existing = reconnected(state, session);
    let connection = existing;

    if (existing) {
        state.override(existing, merged);
    } else {
        connection = state.addConnection(integration, merged);
    }

    const operation = existing ? 'override' : 'creation';
    const webhook = events.auth(connection, operation, {
        success: true,
        tags: connection.tags,
        endUser: session.end_user,
        then,
    });

    return { connection, operation, webhook };
}


/*
 * The user or the provider said no.  The webhook names an id that will never
 * be a connection, or the one that a reconnect was about, which is unharmed.
 */
function deny(sim, { token, integration: id, connection_id: fixed, error,
    then })
{
    const { state, events } = sim;
    const session = sessionOf(state, token);
    const integration = choose(state, session, id);
    const existing = reconnected(state, session);
    const connection = existing || {
        connection_id: fixed || state.newConnectionId(),
        integration: integration.id,
        provider: integration.provider,
        auth_mode: integration.auth_mode,
    };

    const webhook = events.auth(connection, 'creation', {
        success: false,
        error: error || DENIED,
        override: session.webhook_url_override,
        then,
    });

    return { connection, operation: 'creation', webhook };
}


/* operation: "refresh", or "override" for credentials newly refused. */
function fail(sim, connection, { operation, error, status, repeat, webhook,
    then })
{
    const { state, events } = sim;
    const op = operation || 'refresh';
    const refusal = {
        operation: op,
        error: error || REFRESH_ERROR,
        status: status || 424,
        repeat: Boolean(repeat),
    };

    state.fail(connection, refusal);

    if (webhook === false) {
        return null;
    }

    return announceFailure(sim, connection, refusal, then);
}


function announceFailure(sim, connection, refusal, then) {
    return sim.events.auth(connection, refusal.operation, {
        success: false,
        error: refusal.error,
        tags: connection.tags,
        then,
    });
}


function recover(sim, connection, { webhook, then }) {
    sim.state.recover(connection);

    if (webhook === false) {
        return null;
    }

    return sim.events.auth(connection, 'refresh', {
        success: true,
        tags: connection.tags,
        then,
    });
}


function remove(sim, connection, { webhook, then }) {
    sim.state.remove(connection);

    if (!webhook) {
        return null;
    }

    return sim.events.auth(connection, 'deletion', {
        success: true,
        tags: connection.tags,
        then,
    });
}


/* The provider's redirect: whose it is stands in the state parameter. */
function oauthCallback(sim, query) {
    const given = query.state || query.payload || query.customField;
    const [token, integration] = String(given || '').split('|');

    if (!given) {
        return 'No state found in callback';
    }

    if (!sim.state.session(token)) {
        return `No session found for state: ${JSON.stringify(given)}`;
    }

    if (query.code) {
        connect(sim, { token, integration });
        return null;
    }

    deny(sim, { token, integration });

    return DENIED.description;
}


module.exports = {
    DENIED, Refused, permitted, connect, deny, fail, announceFailure, recover, remove,
    oauthCallback,
};
