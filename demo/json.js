/*
 * JSON for demo/run, which has no other tool for it on a bare machine.  Reads
 * standard input.
 *
 *     json.js get a.0.b       that member: a string as it is, else as JSON
 *     json.js show [a b ...]  the value, or these members of it, for people:
 *                             long strings shortened, wide objects broken
 */

'use strict';

const fs = require('node:fs');

const WIDTH = 72;
const LONG = 44;


function get(value, path) {
    for (const name of path.split('.')) {
        if (value === null || typeof value !== 'object'
            || !Object.hasOwn(value, name))
        {
            return undefined;
        }

        value = value[name];
    }

    return value;
}


function shorten(value) {
    return value.length > LONG ? `${value.slice(0, LONG - 3)}...` : value;
}


function flat(value) {
    return JSON.stringify(value, (name, v) =>
        (typeof v === 'string' ? shorten(v) : v));
}


function show(value, indent, used) {
    const line = flat(value);

    if (value === null || typeof value !== 'object'
        || indent.length + used + line.length <= WIDTH)
    {
        return line;
    }

    const deeper = `${indent}  `;
    const array = Array.isArray(value);

    const parts = Object.keys(value).map((name) => {
        const label = array ? '' : `${JSON.stringify(name)}: `;

        return deeper + label + show(value[name], deeper, label.length);
    });

    return `${array ? '[' : '{'}\n${parts.join(',\n')}\n`
           + `${indent}${array ? ']' : '}'}`;
}


const [command, ...names] = process.argv.slice(2);
const text = fs.readFileSync(0, 'utf8');
let value;

try {
    value = JSON.parse(text);
} catch (e) {
    if (command === 'show') {
        process.stdout.write(text.trimEnd());
    }

    process.exit(command === 'show' ? 0 : 1);
}

if (command === 'get') {
    const found = get(value, names[0]);

    if (found === undefined) {
        process.exit(1);
    }

    process.stdout.write(typeof found === 'string' ? found
                                                   : JSON.stringify(found));

} else {
    const some = names.length > 0
        ? Object.fromEntries(names.map((name) => [name, value[name]]))
        : value;

    process.stdout.write(show(some, '', 0) + (some === value ? '' : ' ...'));
}
