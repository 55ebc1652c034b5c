/*
 * The bodies of Nango's webhooks.  Each function returns a plain object;
 * stable() makes the bytes of it: compact, keys sorted at every depth, raw
 * UTF-8.  Members that are undefined are left out.
 */

'use strict';

/* Keys like array indexes come first whatever their order: Nango's too. */
function sorted(value) {
    if (value === null || typeof value !== 'object') {
        return value;
    }

    if (Array.isArray(value)) {
        return value.map(sorted);
    }

    const result = {};

    for (const key of Object.keys(value).sort()) {
        result[key] = sorted(value[key]);
    }

    return result;
}


function stable(value) {
    return JSON.stringify(sorted(value));
}


/* endUser: what the session said, if it was made the old way. */
function auth({ environment, connection, operation, success, tags, endUser,
    error })
{
    return {
        from: 'nango',
        type: 'auth',
        connectionId: connection.connection_id,
        providerConfigKey: connection.integration,
        authMode: connection.auth_mode,
        provider: connection.provider,
        environment,
        operation,
        success,
        tags,
        endUser: endUser ? {
            endUserId: endUser.id,
            endUserEmail: endUser.email === null ? null : endUser.email,
            organizationId: endUser.organization
                            ? endUser.organization.id : undefined,
            tags: endUser.tags || {},
        } : undefined,
        error,
    };
}


function sync({ connection, sync: name, variant, model, kind, added, updated,
    deleted, checkpoints, error, at })
{
    const body = {
        from: 'nango',
        type: 'sync',
        connectionId: connection.connection_id,
        providerConfigKey: connection.integration,
        syncName: name || 'contacts',
        syncVariant: variant || 'base',
        model: model || 'Contact',
        syncType: kind || 'INCREMENTAL',
        checkpoints,
    };

    if (error) {
        return { ...body, success: false, error, startedAt: at, failedAt: at };
    }

    return {
        ...body,
        success: true,
        responseResults: {
            added: added || 0,
            updated: updated || 0,
            deleted: deleted || 0,
        },
        modifiedAfter: at,
        queryTimeStamp: at,
    };
}


function forward({ integration, connectionId, payload }) {
    return {
        from: integration.provider,
        providerConfigKey: integration.id,
        type: 'forward',
        connectionId,
        payload,
    };
}


function asyncAction({ connection, payload }) {
    return {
        type: 'async_action',
        from: 'nango',
        connectionId: connection.connection_id,
        providerConfigKey: connection.integration,
        payload,
    };
}


module.exports = { stable, auth, sync, forward, asyncAction };
