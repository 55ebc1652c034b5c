/*
 * Nango's API: which routes there are, who may use them and what they
 * answer.  handle() takes a request that is wholly read and returns a reply
 * (see reply.js); it never writes to the connection and is the only place
 * that turns a request into a change of state.
 */

'use strict';

const authorise = require('./authorise');
const flow = require('./flow');
const pages = require('./pages');
const query = require('./query');
const reply = require('./reply');
const schemas = require('./schemas');
const { TOKEN_PREFIX, listed, single } = require('./state');
const { tagsFromEndUser, acceptable } = require('./tags');

const KEY = new RegExp('^[0-9A-F]{8}-[0-9A-F]{4}-4[0-9A-F]{3}'
                       + '-[89AB][0-9A-F]{3}-[0-9A-F]{12}$', 'i');
const TOKEN = new RegExp(`^${TOKEN_PREFIX}[a-f0-9]{64}$`);
const FAILED = 'Authentication failed. ';
const NO_LIMIT = 10000;

/* Everything below these takes JSON or nothing. */
const JSON_ONLY = ['connect', 'connections', 'integrations', 'environment',
                   'oauth', 'providers', 'auth', 'api-auth'];

const ROUTES = [
    ['POST', '/connect/sessions', 'key', createSession],
    ['POST', '/connect/sessions/reconnect', 'key', createReconnectSession],
    ['GET', '/connect/session', 'token', getSession],
    ['DELETE', '/connect/session', 'token', deleteSession],
    ['GET', '/connections', 'key', listConnections],
    ['GET', '/connections/:id', 'key', getConnection],
    ['DELETE', '/connections/:id', 'key', deleteConnection],
    ['GET', '/integrations', 'either', listIntegrations],
    ['POST', '/environment/webhook-signing-key/rotate', 'key', rotateKey],
    ['GET', '/providers/:id', 'either', getProvider],
    ['POST', '/api-auth/api-key/:id', 'none', authorise.apiKey],
    ['POST', '/api-auth/basic/:id', 'none', authorise.basic],
    ['POST', '/auth/unauthenticated/:id', 'none', authorise.none],
    ['GET', '/oauth/connect/:id', 'none', authorise.begin],
    ['GET', '/_provider/authorize', 'none', authorise.consent],
    ['GET', '/oauth/callback', 'none', authorise.callback],
    ['GET', '/health', 'none', () => reply.json(200, { result: 'ok' })],
];


/* Sessions */

function missingIntegrations(sim, body) {
    const absent = (id) => !sim.state.integrations.has(id);
    const errors = [];

    const note = (path) => errors.push({
        code: 'custom',
        message: 'Integration does not exist',
        path,
    });

    (body.allowed_integrations || []).forEach((id, i) => {
        if (absent(id)) {
            note(['allowed_integrations', String(i)]);
        }
    });

    for (const member of ['integrations_config_defaults', 'overrides']) {
        Object.keys(body[member] || {}).filter(absent)
            .forEach((id) => note([member, id]));
    }

    return errors;
}


/* The end user as the API shows it later: absent members are null. */
function storedEndUser({ end_user: user, organization }) {
    if (!user) {
        return null;
    }

    return {
        id: user.id,
        display_name: user.display_name || null,
        email: user.email || null,
        tags: user.tags || null,
        organization: organization ? {
            id: organization.id,
            display_name: organization.display_name || null,
        } : null,
    };
}


/*
 * The older place of the webhook's URL, inside the defaults of an
 * integration, still works where the newer one says nothing.
 */
function webhookOverride(body) {
    let url = body.webhook_url_override;

    for (const defaults of
        Object.values(body.integrations_config_defaults || {}))
    {
        const config = defaults.connection_config;

        if (config && 'webhook_url' in config) {
            url = url === undefined ? config.webhook_url : url;
            delete config.webhook_url;
        }
    }

    return url || null;
}


function storeSession(sim, body, values) {
    const session = sim.state.addSession({
        allowed_integrations: null,
        reconnect: null,
        integrations_config_defaults: body.integrations_config_defaults
                                      || null,
        overrides: body.overrides || null,
        webhook_url_override: webhookOverride(body),
        end_user: storedEndUser(body),
        ...values,
    });
    const link = new URL(sim.settings.connect_ui);

    link.searchParams.set('session_token', session.token);

    return reply.json(201, {
        data: {
            token: session.token,
            connect_link: link.href,
            expires_at: new Date(session.expires).toISOString(),
        },
    });
}


function createSession(sim, req) {
    const { value: body, errors } = schemas.checkSession(req.json);

    if (errors) {
        return reply.invalid('invalid_body', errors);
    }

    const missing = missingIntegrations(sim, body);

    if (missing.length > 0) {
        return reply.invalid('invalid_body', missing);
    }

    const tags = {
        ...tagsFromEndUser(body.end_user, body.end_user && body.organization),
        ...body.tags,
    };

    if (!acceptable(tags)) {
        return reply.error(500, 'server_error',
                           'Failed to create connect session');
    }

    const allowed = body.allowed_integrations || [];

    return storeSession(sim, body, {
        tags,
        allowed_integrations: allowed.length > 0 ? allowed : null,
    });
}


function createReconnectSession(sim, req) {
    const { value: body, errors } = schemas.check(schemas.reconnect, req.json);

    if (errors) {
        return reply.invalid('invalid_body', errors);
    }

    const connection = sim.state.connection(body.integration_id,
                                            body.connection_id);

    if (!connection) {
        return reply.error(400, 'invalid_body',
                           'ConnectionID or IntegrationId does not exists');
    }

    const missing = missingIntegrations(sim, body);

    if (missing.length > 0) {
        return reply.invalid('invalid_body', missing);
    }

    const tags = {
        ...tagsFromEndUser(body.end_user, body.organization),
        ...body.tags,
    };

    if (!acceptable(tags)) {
        return reply.error(500, 'server_error',
                           'Failed to create connect session');
    }

    return storeSession(sim, body, {
        tags,
        allowed_integrations: [body.integration_id],
        reconnect: connection,
    });
}


function getSession(sim, req) {
    const session = req.session;
    const user = session.end_user
                 || (session.reconnect && session.reconnect.end_user);
    const data = {
        endUser: user || null,
        connectUISettings: {
            showWatermark: true,
            defaultTheme: 'system',
            theme: {
                light: { primary: '#00B2E3' },
                dark: { primary: '#00B2E3' },
            },
        },
    };

    if (session.allowed_integrations) {
        data.allowed_integrations = session.allowed_integrations;
    }

    if (session.integrations_config_defaults) {
        data.integrations_config_defaults = Object.fromEntries(
            Object.entries(session.integrations_config_defaults)
                .map(([id, defaults]) => [id, {
                    connection_config: defaults.connection_config,
                    authorization_params: defaults.authorization_params,
                }]));
    }

    if (session.reconnect) {
        data.isReconnecting = true;
    }

    if (session.overrides) {
        data.overrides = session.overrides;
    }

    return reply.json(200, { data });
}


function deleteSession(sim, req) {
    sim.state.deleteSession(req.session.token);

    return reply.empty(204);
}


/* Connections */

function listConnections(sim, req) {
    const { value: q, errors } = schemas.check(schemas.listConnections,
                                               req.query);

    if (errors) {
        return reply.invalid('invalid_query_params', errors);
    }

    const integrations = q.integrationId
        && q.integrationId.split(',').map((id) => id.trim());
    const wanted = (q.search || '').toLowerCase();

    const found = (text) =>
        typeof text === 'string' && text.toLowerCase().includes(wanted);

    const matches = (row) => {
        const user = row.end_user || {};
        const organization = user.organization || {};

        return (!q.connectionId || row.connection_id === q.connectionId)
               && (!integrations || integrations.includes(row.integration))
               && (!q.endUserId || user.id === q.endUserId)
               && (!q.endUserOrganizationId
                   || organization.id === q.endUserOrganizationId)
               && (!q.search || found(row.connection_id) || found(user.email)
                   || found(user.display_name));
    };

    const rows = sim.state.list({
        tags: q.tags,
        limit: Math.floor(q.limit || NO_LIMIT),
        page: Math.floor(q.page || 0),
        matches,
    });

    return reply.json(200, { connections: rows.map(listed) });
}


/* The ids of a request for one connection, or the reply that refuses it. */
function oneConnection(req, schema, paramsFirst) {
    const params = schemas.check(schemas.connectionParams,
                                 { connectionId: req.params.id });
    const values = schemas.check(schema, req.query);
    const wrongParams = params.errors
        && reply.invalid('invalid_uri_params', params.errors);
    const wrongQuery = values.errors
        && reply.invalid('invalid_query_params', values.errors);

    return {
        refused: paramsFirst ? wrongParams || wrongQuery
                             : wrongQuery || wrongParams,
        id: req.params.id,
        ...values.value,
    };
}


function withoutRefreshToken(credentials) {
    const { refresh_token: dropped, raw, ...rest } = credentials;

    if (!raw) {
        return rest;
    }

    const { refresh_token: alsoDropped, ...rawRest } = raw;

    return { ...rest, raw: rawRest };
}


/* Reading a connection refreshes what has run out, if it can be. */
function refresh(sim, connection, force) {
    const { credentials } = connection;

    if (credentials.type !== 'OAUTH2' || !credentials.expires_at
        || (!force
            && Date.parse(credentials.expires_at) > sim.clock.now()))
    {
        return;
    }

    connection.credentials = sim.state.oauthCredentials();
    connection.updated = sim.clock.now();
}


function getConnection(sim, req) {
    const asked = oneConnection(req, schemas.getConnection, false);

    if (asked.refused) {
        return asked.refused;
    }

    if (!sim.state.integrations.has(asked.provider_config_key)) {
        return reply.error(400, 'unknown_provider_config',
                           'Provider does not exists');
    }

    const connection = sim.state.connection(asked.provider_config_key,
                                            asked.id);

    if (!connection) {
        return reply.error(404, 'not_found', 'Failed to find connection');
    }

    const { refusal } = connection;

    if (refusal) {
        if (refusal.repeat) {
            flow.announceFailure(sim, connection, refusal);
        }

        return refused(connection,
                       { payload: { connection: single(connection, {}) } });
    }

    refresh(sim, connection, asked.force_refresh);
    connection.last_fetched = sim.clock.now();

    const { credentials } = connection;

    return reply.json(200, single(connection,
                                  asked.refresh_token
                                  ? credentials
                                  : withoutRefreshToken(credentials)));
}


function deleteConnection(sim, req) {
    const asked = oneConnection(req, schemas.deleteConnection, true);

    if (asked.refused) {
        return asked.refused;
    }

    const connection = sim.state.connection(asked.provider_config_key,
                                            asked.id);

    if (!connection) {
        return reply.json(400, { error: { code: 'unknown_connection' } });
    }

    flow.remove(sim, connection, { webhook: sim.settings.on_deletion });

    return reply.json(200, { success: true });
}


/* The rest */

function listIntegrations(sim, req) {
    const allowed = req.session && req.session.allowed_integrations;
    const data = [...sim.state.integrations.values()]
        .filter((one) => !allowed || allowed.includes(one.id))
        .sort((a, b) => (a.provider < b.provider ? -1
                         : a.provider > b.provider ? 1 : 0))
        .map((one) => ({
            unique_key: one.id,
            provider: one.provider,
            display_name: one.display_name,
            logo: one.logo
                  || `${sim.settings.public_url}/images/template-logos/`
                     + `${one.provider}.svg`,
            created_at: one.created_at,
            updated_at: one.updated_at,
        }));

    return reply.json(200, { data });
}


function rotateKey(sim) {
    return reply.json(200, {
        data: { webhook_signing_key: sim.state.rotateSigningKey() },
    });
}


/* What Connect UI has to know: whether to open a popup, or show a form. */
function getProvider(sim, req) {
    const found = [...sim.state.integrations.values()]
        .find((one) => one.provider === req.params.id);

    if (!found) {
        return reply.error(404, 'unknown_provider',
                           `Unknown provider ${req.params.id}`);
    }

    return reply.json(200, {
        data: {
            name: found.provider,
            display_name: found.display_name,
            auth_mode: found.auth_mode,
        },
    });
}


function refused({ refusal }, payload) {
    return reply.json(refusal.status, {
        error: {
            code: 'invalid_credentials',
            message: refusal.error.description,
            ...payload,
        },
    });
}


/* What a provider might say to a call with the connection's credentials. */
function provided(req, connection, path) {
    if (!connection) {
        return reply.error(404, 'not_found', 'Failed to find connection');
    }

    if (connection.refusal) {
        return refused(connection);
    }

    return reply.json(200, {
        provider: connection.provider,
        answer: 'Hello from a provider that does not exist.',
        asked: `${req.method} ${path}`,
        account: connection.tags.end_user_id || 'somebody',
        scopes: ['profile', 'offline'],
    });
}


/*
 * An echo: what the provider would have been asked, and with what.  It has
 * the API key in it, so where pages may see it there is the other answer.
 */
function proxy(sim, req) {
    const ids = schemas.check(schemas.proxyHeaders, req.headers);

    if (ids.errors) {
        return reply.invalid('invalid_headers', ids.errors);
    }

    const connection = sim.state.connection(
        req.headers['provider-config-key'], req.headers['connection-id']);
    const path = req.url.replace(/^\/proxy\/?/, '/');

    if (sim.settings.proxy === 'provider') {
        return provided(req, connection, path);
    }

    return reply.json(200, {
        method: req.method,
        path,
        headers: req.headers,
        raw_headers: req.rawHeaders,
        body: req.body.toString('utf8'),
        connection_known: connection !== null,
    });
}


/* Who asks, and what for */

function authenticate(sim, req, who) {
    const header = req.headers.authorization;

    if (!header) {
        return reply.unauthorized('missing_auth_header', FAILED
            + 'The request is missing the Authorization header.');
    }

    const secret = header.split('Bearer ').pop();

    if (!secret) {
        return reply.unauthorized('malformed_auth_header', FAILED
            + 'The Authorization header is malformed.');
    }

    if (who === 'token' || (who === 'either'
                            && secret.startsWith(TOKEN_PREFIX)))
    {
        if (!TOKEN.test(secret)) {
            return reply.unauthorized('invalid_connect_session_token_format',
                FAILED + 'The provided connect session token is not '
                + 'following correct format: '
                + 'nango_connect_session_RANDOM)');
        }

        req.session = sim.state.session(secret);

        return req.session
               ? null
               : reply.unauthorized('unknown_connect_session_token', FAILED
                   + 'The provided connect session token does not match '
                   + 'any account.');
    }

    if (!KEY.test(secret)) {
        return reply.unauthorized('invalid_secret_key_format', FAILED
            + 'The provided secret key is not a UUID v4.');
    }

    return sim.state.apiKeys.has(secret)
           ? null
           : reply.unauthorized('unknown_account', FAILED
               + 'The provided authorization header does not match any '
               + 'account.');
}


function segments(path) {
    return path.replace(/\/$/, '').split('/').slice(1);
}


const TABLE = ROUTES.map(([method, path, who, run]) =>
    ({ method, parts: segments(path), who, run }));


function findRoute(method, path) {
    const parts = segments(path);

    if (parts[0] === 'proxy') {
        return { who: 'key', run: proxy, params: {} };
    }

    for (const route of TABLE) {
        if (route.method !== method || route.parts.length !== parts.length) {
            continue;
        }

        const params = {};
        const fits = route.parts.every((part, i) => {
            if (part.startsWith(':')) {
                params[part.slice(1)] = parts[i];
                return parts[i] !== '';
            }

            return part === parts[i];
        });

        if (fits) {
            return { ...route, params };
        }
    }

    return null;
}


/* Routes that take no query at all refuse any, those without body likewise. */
const OWN_QUERY = [listConnections, getConnection, deleteConnection, proxy,
                   ...Object.values(authorise)];
const NO_BODY = [getSession, deleteSession];


function checkEmpty(route, req) {
    if (!OWN_QUERY.includes(route.run)) {
        const { errors } = schemas.check(schemas.nothing, req.query);

        if (errors) {
            return reply.invalid('invalid_query_params', errors);
        }
    }

    if (NO_BODY.includes(route.run) && req.json) {
        const { errors } = schemas.check(schemas.nothing, req.json);

        if (errors) {
            return reply.invalid('invalid_body', errors);
        }
    }

    return null;
}


/* The body as JSON: undefined where there is none that says it is. */
function parseBody(req) {
    const type = (req.headers['content-type'] || '').split(';')[0].trim()
        .toLowerCase();
    const present = req.headers['content-length'] !== undefined
                    || req.headers['transfer-encoding'] !== undefined;

    if (type !== 'application/json' || !present) {
        return undefined;
    }

    const text = req.body.toString('utf8').replace(/^\ufeff/, '');

    if (text === '') {
        return {};
    }

    /* Only objects and lists pass for JSON; the # makes the rest fail. */
    return JSON.parse(/^[\x20\x09\x0a\x0d]*[[{]/.test(text)
                      ? text : `#${text}`);
}


function withHeaders(answer, headers) {
    return { ...answer, headers: headers.concat(answer.headers) };
}


/*
 * req: {method, url, headers, rawHeaders, body}.  The reply, with "late"
 * (milliseconds) where Nango takes its time on purpose.
 */
function handle(sim, req) {
    const mark = req.url.indexOf('?');
    const path = mark < 0 ? req.url : req.url.slice(0, mark);

    if (req.method === 'OPTIONS') {
        return { ...reply.empty(204), preflight: true };
    }

    try {
        req.json = parseBody(req);
    } catch (e) {
        return reply.error(400, 'invalid_json', e.message);
    }

    const type = req.headers['content-type'];

    if (JSON_ONLY.includes(segments(path)[0]) && type
        && !type.startsWith('application/json'))
    {
        return reply.error(415, 'invalid_content_type',
            'Content-Type header must be application/json');
    }

    const route = findRoute(req.method, path);

    /* The dashboard answers whatever else is asked for. */
    if (!route) {
        return req.method === 'GET'
               ? reply.html(200, '<!DOCTYPE html><html><body>Nango</body>'
                                 + '</html>\n')
               : reply.html(404, '<!DOCTYPE html><html><body><pre>Cannot '
                                 + `${req.method} ${pages.escapeHtml(path)}`
                                 + '</pre></body></html>\n');
    }

    let limited = { headers: [], refused: null };

    if (route.who !== 'none') {
        const refused = authenticate(sim, req, route.who);

        if (refused) {
            return { ...refused, late: sim.settings.bad_key_ms };
        }

        limited = sim.limits.take(req.session ? 'token' : 'key');
    }

    if (limited.refused !== null) {
        return reply.json(429, {
            error: { code: 'too_many_request', method: req.method, path },
        }, [...limited.headers, 'Retry-After', String(limited.refused)]);
    }

    try {
        for (const name of Object.keys(route.params)) {
            route.params[name] = decodeURIComponent(route.params[name]);
        }
    } catch (e) {
        return withHeaders(reply.error(400, 'invalid_uri_params',
                                       'malformed path'), limited.headers);
    }

    req.params = route.params;
    req.query = mark < 0 ? {} : query.parse(req.url.slice(mark + 1));

    return withHeaders(checkEmpty(route, req) || route.run(sim, req),
                       limited.headers);
}


module.exports = { handle };
