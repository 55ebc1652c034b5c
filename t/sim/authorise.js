/*
 * How users authorise: what Connect UI and Nango's frontend SDK ask of the API
 * with a session's token in the query, and the popup of OAuth from its start
 * over the provider's consent to the callback.
 */

'use strict';

const crypto = require('node:crypto');

const flow = require('./flow');
const pages = require('./pages');
const reply = require('./reply');

/* Begun by popups and never ended: the oldest go. */
const MAX_BEGUN = 1000;

const COOKIE = 'nango_oauth';

/* What the provider does not take, so that refusals can be seen. */
const BAD_KEY = /^bad/i;


function refusal(e) {
    if (!(e instanceof flow.Refused)) {
        throw e;
    }

    return reply.error(e.status, e.code, e.message);
}


/* Credentials that are typed in: no popup, and the answer is the result. */
function direct(mode, credentials) {
    return (sim, req) => {
        const asked = {
            token: req.query.connect_session_token,
            integration: req.params.id,
        };

        try {
            const integration = flow.permitted(sim, asked);

            if (integration.auth_mode !== mode) {
                return reply.error(400, 'invalid_auth_mode',
                    `The integration is not of ${mode}`);
            }

            const { missing, ...values } = credentials(req.json || {});

            if (missing) {
                return reply.invalid('invalid_body', [{
                    code: 'too_small', message: 'Required', path: [missing],
                }]);
            }

            if (Object.values(values).some((value) => BAD_KEY.test(value))) {
                flow.deny(sim, { ...asked, error: {
                    type: 'connection_test_failed',
                    description: 'The given credentials were found to be '
                                 + 'invalid',
                } });

                return reply.error(400, 'connection_test_failed',
                    'The given credentials were found to be invalid');
            }

            const { connection } = flow.connect(sim, {
                ...asked,
                credentials: mode === 'NONE' ? {} : { type: mode, ...values },
            });

            return reply.json(200, {
                providerConfigKey: connection.integration,
                connectionId: connection.connection_id,
            });

        } catch (e) {
            return refusal(e);
        }
    };
}


/* The members that a form has to have. */
function members(...names) {
    return (body) => {
        const missing = names.find((name) =>
            typeof body[name] !== 'string' || body[name] === '');

        return missing ? { missing } : Object.fromEntries(
            names.map((name) => [name, body[name]]));
    };
}


function redirect(location, headers) {
    return {
        ...reply.empty(302),
        headers: ['Location', location, ...(headers || [])],
    };
}


/* The popup's first address: on to the provider. */
function begin(sim, req) {
    const asked = {
        token: req.query.connect_session_token,
        integration: req.params.id,
    };
    const client = req.query.ws_client_id;

    try {
        const integration = flow.permitted(sim, asked);

        if (integration.auth_mode !== 'OAUTH2') {
            throw new flow.Refused(400, 'invalid_auth_mode');
        }
    } catch (e) {
        const { status } = refusal(e);

        sim.sockets.tell(client, {
            message_type: 'error', error_type: e.code, error_desc: e.message,
        });

        return reply.html(status, pages.ended(e.message));
    }

    const state = crypto.randomUUID();
    const { begun } = sim.state;

    begun.set(state, { ...asked, client });

    if (begun.size > MAX_BEGUN) {
        begun.delete(begun.keys().next().value);
    }

    return redirect(`/_provider/authorize?state=${state}`, [
        'Set-Cookie',
        `${COOKIE}=${state}; Path=/oauth; HttpOnly; SameSite=Lax`,
    ]);
}


/* The provider, which asks its user and goes back with the answer. */
function consent(sim, req) {
    const { state } = req.query;
    const begun = sim.state.begun.get(state);
    const integration = begun && sim.state.integrations.get(begun.integration);

    if (!integration) {
        return reply.html(400, pages.ended('Nobody asked for this consent.'));
    }

    return reply.html(200, pages.consent({
        integration,
        state,
        code: crypto.randomBytes(8).toString('hex'),
        callback: sim.settings.callback_url
                  || `${sim.url}/oauth/callback`,
    }));
}


function cookie(req) {
    const found = new RegExp(`(?:^|; *)${COOKIE}=([^;]*)`)
        .exec(req.headers.cookie || '');

    return found && found[1];
}


/* What is wrong with how a popup ended, or null; its opener is told. */
function finish(sim, begun, req) {
    const tell = (message) => sim.sockets.tell(begun.client, message);
    const failed = (type, text) => {
        tell({ message_type: 'error', provider_config_key: begun.integration,
               error_type: type, error_desc: text });

        return text;
    };

    /* The browser that began it: a proxied callback would not have it. */
    if (cookie(req) !== req.query.state) {
        return failed('invalid_state', 'The callback came without the '
                      + 'cookie of its beginning');
    }

    sim.state.begun.delete(req.query.state);

    try {
        if (!req.query.code) {
            flow.deny(sim, begun);

            return failed(flow.DENIED.type, flow.DENIED.description);
        }

        const { connection } = flow.connect(sim, begun);

        tell({ message_type: 'success',
               provider_config_key: connection.integration,
               connection_id: connection.connection_id,
               is_pending: false });

        return null;

    } catch (e) {
        refusal(e);

        return failed(e.code, e.message);
    }
}


function callback(sim, req) {
    const begun = sim.state.begun.get(req.query.state);
    const problem = begun ? finish(sim, begun, req)
                          : flow.oauthCallback(sim, req.query);

    return reply.html(200, pages.ended(problem));
}


module.exports = {
    begin, consent, callback,
    apiKey: direct('API_KEY', members('apiKey')),
    basic: direct('BASIC', members('username', 'password')),
    none: direct('NONE', members()),
};
