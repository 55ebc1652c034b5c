/*
 * Which webhook follows from what happened, and where it goes: the bodies
 * come from bodies.js, the sending from delivery.js.  Each function returns
 * the record of the delivery, or null where the settings say that Nango
 * keeps silent about such an event.
 */

'use strict';

const bodies = require('./bodies');

/* Headers of a provider's webhook that Nango does not pass on. */
const NOT_FORWARDED = ['host', 'authorization', 'connection', 'keep-alive',
                       'content-length', 'content-type', 'content-encoding',
                       'cookie', 'set-cookie', 'referer', 'user-agent',
                       'sec-', 'proxy-', 'www-authenticate', 'server'];


class Events {
    constructor({ state, settings, deliveries, clock }) {
        this.state = state;
        this.settings = settings;
        this.deliveries = deliveries;
        this.clock = clock;
        this.random = 1;
    }

    /* A sequence that looks random and is the same in every run. */
    chance() {
        this.random = (this.random * 48271) % 2147483647;

        return this.random / 2147483647;
    }

    /* A URL of the connection's own replaces both of the environment's. */
    urls(override) {
        if (override) {
            return [override];
        }

        return [this.settings.webhook_url, this.settings.webhook_url_secondary]
            .filter(Boolean);
    }

    key() {
        return this.settings.sign_with_previous
               && this.state.previousSigningKey
               ? this.state.previousSigningKey : this.state.signingKey;
    }

    send(body, { override, before, describe, signatures, key, then }) {
        const urls = this.urls(override);

        if (urls.length === 0) {
            return null;
        }

        const delivery = {
            urls,
            body,
            key: key || this.key(),
            describe,
            before,
            signatures,
            then,
        };

        if (this.chance() < this.settings.webhook_drop) {
            return this.deliveries.drop(delivery, 'dropped');
        }

        if (this.chance() < this.settings.webhook_duplicate) {
            this.deliveries.begin({ ...delivery, then: undefined });
        }

        return this.deliveries.begin(delivery);
    }

    auth(connection, operation, { success, error, tags, endUser, override,
        then })
    {
        const silent = { creation: 'on_auth_creation',
                         refresh: 'on_auth_refresh_error' }[operation];

        if (silent && !this.settings[silent]) {
            return null;
        }

        const body = bodies.stable(bodies.auth({
            environment: this.settings.environment,
            connection,
            operation,
            success,
            error,
            tags,
            endUser,
        }));

        return this.send(body, {
            override: override || connection.webhook_url_override,
            describe: { type: 'auth', operation, success,
                        connection_id: connection.connection_id,
                        integration: connection.integration },
            then,
        });
    }

    sync(connection, values) {
        const empty = !values.error && !values.added && !values.updated
                      && !values.deleted;

        if ((values.error && !this.settings.on_sync_error)
            || (empty && !this.settings.on_sync_completion_always))
        {
            return null;
        }

        const body = bodies.stable(bodies.sync({
            ...values,
            connection,
            at: values.at || new Date(this.clock.now()).toISOString(),
        }));

        return this.send(body, {
            override: connection.webhook_url_override,
            describe: { type: 'sync', success: !values.error,
                        connection_id: connection.connection_id,
                        integration: connection.integration },
        });
    }

    asyncAction(connection, payload) {
        return this.send(
            bodies.stable(bodies.asyncAction({ connection, payload })), {
                override: connection.webhook_url_override,
                describe: { type: 'async_action',
                            connection_id: connection.connection_id,
                            integration: connection.integration },
            });
    }

    /*
     * One webhook for each connection that the provider's could be
     * attributed to; without any, the payload goes out as it came.
     */
    forward(integration, connections, payload, headers) {
        const before = {};

        for (const [name, value] of Object.entries(headers || {})) {
            if (!NOT_FORWARDED.some((no) => name.toLowerCase().startsWith(no)))
            {
                before[name] = value;
            }
        }

        if (connections.length === 0) {
            return [this.send(bodies.stable(payload), {
                before,
                describe: { type: 'forward', raw: true,
                            integration: integration.id },
            })];
        }

        return connections.map((connection) =>
            this.send(bodies.stable(bodies.forward({
                integration,
                connectionId: connection.connection_id,
                payload,
            })), {
                before,
                override: connection.webhook_url_override,
                describe: { type: 'forward', raw: false,
                            connection_id: connection.connection_id,
                            integration: integration.id },
            }));
    }
}


module.exports = { Events };
