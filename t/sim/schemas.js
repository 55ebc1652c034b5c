/*
 * What each request of Nango's API may hold: the rules of the wire, one
 * schema a request.  Nothing here looks at state.
 */

'use strict';

const s = require('./schema');
const tags = require('./tags');

const integrationId = s.pattern(/^[a-zA-Z0-9~:.@ _-]+$/, 255);
const connectionId =
    s.pattern(/^[a-zA-Z0-9,.;:=+~[\]|@${}"'\\/_ -]+$/, 255);

const tagKey = s.string({
    test: (value) => tags.KEY.test(value),
    testText: '',
    max: tags.MAX_KEY,
});

const tagSet = s.record(
    tagKey,
    s.string({
        min: 1,
        max: tags.MAX_VALUE,
        maxText: `Tag values must be at most ${tags.MAX_VALUE} characters`,
    }),
    tags.tagProblems,
    tags.lowerKeys);

const endUserTags = s.record(
    tagKey,
    s.string({ max: tags.MAX_VALUE }),
    tags.tagProblems);

const endUserId = s.string({ max: 255, min: 1 });

const endUser = s.object({
    id: endUserId,
    email: s.optional(s.string({
        test: tags.isEmail,
        testText: 'Invalid email address',
        min: 5,
    })),
    display_name: s.optional(s.string({ max: 255 })),
    tags: s.optional(endUserTags),
}, 'strict');

const organization = s.optional(s.object({
    id: s.string({ max: 255 }),
    display_name: s.optional(s.string({ max: 255 })),
}, 'strict'));

const defaults = s.optional(s.record(integrationId, s.object({
    user_scopes: s.optional(s.string()),
    authorization_params: s.optional(s.record(s.string(), s.string())),
    connection_config: s.optional(s.object({
        oauth_scopes_override: s.optional(s.string()),
    }, 'loose')),
}, 'strict')));

const overrides = s.optional(s.record(integrationId, s.object({
    docs_connect: s.optional(s.string()),
}, 'strip')));


function webhookUrl(value, path, issues) {
    let url;

    if (value === undefined || value === '') {
        return value;
    }

    try {
        url = typeof value === 'string' ? new URL(value) : null;
    } catch (e) {
        url = null;
    }

    if (!url) {
        issues.push({ code: 'invalid_union', message: 'Invalid input', path });

    } else if (/(^|\.)nango\.dev$/.test(url.hostname.replace(/\.+$/, ''))) {
        issues.push({
            code: 'custom',
            message: "Webhook URLs cannot point to Nango's domain "
                     + '(nango.dev).',
            path,
        });
    }

    return value;
}


function session(endUserSchema, tagSchema) {
    return s.object({
        end_user: endUserSchema,
        organization,
        allowed_integrations: s.optional(s.array(integrationId)),
        integrations_config_defaults: defaults,
        overrides,
        webhook_url_override: webhookUrl,
        tags: tagSchema,
    }, 'strict');
}

const sessionByUser = session(endUser, s.optional(tagSet));
const sessionByTags = session(s.optional(endUser), tagSet);


/* One of end_user and tags must be there; which is missing names the rule. */
function checkSession(body) {
    const isObject = body !== null && typeof body === 'object'
                     && !Array.isArray(body);

    if (isObject && 'tags' in body && !('end_user' in body)) {
        return s.check(sessionByTags, body);
    }

    return s.check(sessionByUser, body);
}


const reconnect = s.object({
    connection_id: connectionId,
    integration_id: integrationId,
    end_user: s.optional(endUser),
    organization,
    integrations_config_defaults: defaults,
    overrides,
    webhook_url_override: webhookUrl,
    tags: s.optional(tagSet),
}, 'strict');

const listConnections = s.object({
    connectionId: s.optional(s.string({ min: 1, max: 255 })),
    search: s.optional(s.string({ min: 1, max: 255 })),
    endUserId: s.optional(endUserId),
    integrationId: s.optional(s.string({ min: 1 })),
    endUserOrganizationId: s.optional(endUserId),
    tags: s.optional(tagSet),
    limit: s.optional(s.number({ min: 1, max: 2000 })),
    page: s.optional(s.number({ min: 0 })),
}, 'strict');

const getConnection = s.object({
    provider_config_key: integrationId,
    refresh_token: s.optional(s.flag()),
    force_refresh: s.optional(s.flag()),
    refresh_github_app_jwt_token: s.optional(s.flag()),
}, 'strict');

const deleteConnection = s.object({
    provider_config_key: integrationId,
}, 'strict');

const nothing = s.object({}, 'strict');
const connectionParams = s.object({ connectionId }, 'strict');

const proxyHeaders = s.object({
    'provider-config-key': integrationId,
    'connection-id': connectionId,
}, 'strip');


module.exports = {
    check: s.check,
    checkSession,
    reconnect, listConnections, getConnection, deleteConnection,
    nothing, connectionParams, proxyHeaders,
};
