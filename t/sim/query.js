/*
 * Query strings with brackets, as Nango's server reads them: a=1, a[b]=1 and
 * a[]=1 become text, objects and lists; a name given twice is a list.
 */

'use strict';

const MAX_DEPTH = 5;
const MAX_PARAMETERS = 1000;


function decode(text) {
    const spaced = text.replace(/\+/g, ' ');

    try {
        return decodeURIComponent(spaced);
    } catch (e) {
        return spaced;
    }
}


/* "tags[a][b]" -> ["tags", "a", "b"]; what is too deep stays one name. */
function names(key) {
    const open = key.indexOf('[');

    if (open < 1) {
        return [key];
    }

    const result = [key.slice(0, open)];
    let rest = key.slice(open);

    while (rest !== '' && result.length <= MAX_DEPTH) {
        const part = /^\[([^[\]]*)\]/.exec(rest);

        if (!part) {
            break;
        }

        result.push(part[1]);
        rest = rest.slice(part[0].length);
    }

    if (rest !== '') {
        result.push(rest);
    }

    return result;
}


function put(target, path, value) {
    const [name, ...rest] = path;
    const had = Object.hasOwn(target, name) ? target[name] : undefined;

    if (rest.length === 0) {
        target[name] = had === undefined ? value : [].concat(had, value);
        return;
    }

    if (rest[0] === '' || (/^\d+$/.test(rest[0]) && rest.length === 1)) {
        target[name] = [].concat(had === undefined ? [] : had, value);
        return;
    }

    if (had === null || typeof had !== 'object') {
        target[name] = had === undefined ? {} : { [had]: true };
    }

    put(target[name], rest, value);
}


function parse(text) {
    const result = {};

    for (const pair of text.split('&').slice(0, MAX_PARAMETERS)) {
        if (pair === '') {
            continue;
        }

        const equals = pair.indexOf('=');
        const key = decode(equals < 0 ? pair : pair.slice(0, equals));
        const value = equals < 0 ? '' : decode(pair.slice(equals + 1));

        if (!key.includes('__proto__')) {
            put(result, names(key), value);
        }
    }

    return result;
}


module.exports = { parse };
