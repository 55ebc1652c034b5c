/*
 * Tags: how the old way of naming an owner (end_user, organization) becomes
 * tags, and in which order a stored set of tags comes back.  Which tags are
 * accepted at all is told in schemas.js.
 */

'use strict';

const MAX_TAGS = 10;
const MAX_KEY = 64;
const MAX_VALUE = 255;
const KEY = /^[a-zA-Z][a-zA-Z0-9_\-./]*$/;


/* The rule is Nango's; a domain needs a dot and a name of letters after it. */
function isEmail(text) {
    const at = text.indexOf('@');

    if (at < 1) {
        return false;
    }

    const local = text.slice(0, at);
    const labels = text.slice(at + 1).split('.');
    const top = labels.pop();

    return /^[\w'+.-]+$/.test(local)
           && !local.startsWith('.')
           && !/[.']$/.test(local)
           && !text.includes('..')
           && labels.length > 0
           && labels.every((label) => /^[A-Za-z0-9][A-Za-z0-9-]*$/.test(label))
           && /^[A-Za-z]{2,}$/.test(top);
}


function tagProblems(tags) {
    const keys = Object.keys(tags);
    const problems = [];
    const seen = new Set();

    if (keys.length > MAX_TAGS) {
        return [`Tags cannot contain more than ${MAX_TAGS} keys`];
    }

    for (const key of keys) {
        const lower = key.toLowerCase();

        if (seen.has(lower)) {
            problems.push('Duplicate tag key after case normalization: '
                          + `"${lower}"`);
        }

        seen.add(lower);

        if (lower === 'end_user_email'
            && (tags[key].length < 5 || !isEmail(tags[key])))
        {
            problems.push('Tag "end_user_email" must be a valid email');
        }
    }

    return problems;
}


function lowerKeys(tags) {
    const lowered = {};

    for (const key of Object.keys(tags)) {
        lowered[key.toLowerCase()] = tags[key];
    }

    return lowered;
}


/* What a set of tags may be once its keys are known to be good. */
function acceptable(tags) {
    return tagProblems(tags).length === 0
           && Object.keys(tags).every((key) => KEY.test(key)
                                               && key.length <= MAX_KEY
                                               && tags[key].length > 0
                                               && tags[key].length
                                                  <= MAX_VALUE);
}


/*
 * Too long a value is cut, an empty one left out.  The user's own tags go
 * altogether when they are too many or one of them is no tag: better known
 * by id alone than refused.
 */
function tagsFromEndUser(endUser, organization) {
    const base = {};

    const put = (key, value) => {
        if (typeof value === 'string' && value !== '') {
            base[key] = value.slice(0, MAX_VALUE);
        }
    };

    if (endUser) {
        put('end_user_id', endUser.id);
        put('end_user_email', endUser.email);
        put('end_user_display_name', endUser.display_name);
    }

    if (organization) {
        put('organization_id', organization.id);
        put('organization_display_name', organization.display_name);
    }

    const own = {};

    for (const [key, value] of Object.entries((endUser && endUser.tags) || {}))
    {
        own[key.toLowerCase().slice(0, MAX_KEY)] = value.slice(0, MAX_VALUE);
    }

    const all = { ...base, ...own };

    if (Object.keys(all).length <= MAX_TAGS && acceptable(all)) {
        return all;
    }

    return acceptable(base) ? base : {};
}


/* Stored objects come back with short keys first, equal lengths by bytes. */
function storedOrder(object) {
    if (object === null || typeof object !== 'object') {
        return object;
    }

    if (Array.isArray(object)) {
        return object.map(storedOrder);
    }

    const keys = Object.keys(object).sort((a, b) => {
        const x = Buffer.from(a);
        const y = Buffer.from(b);

        return x.length - y.length || Buffer.compare(x, y);
    });
    const ordered = {};

    for (const key of keys) {
        ordered[key] = storedOrder(object[key]);
    }

    return ordered;
}


module.exports = {
    MAX_KEY, MAX_VALUE, KEY,
    isEmail, tagProblems, lowerKeys, acceptable, tagsFromEndUser, storedOrder,
};
