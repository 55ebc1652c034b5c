/*
 * A small checker of JSON values that reports as zod does, since zod's codes,
 * texts and paths are what a client of Nango sees.  A schema is a function
 * (value, path, issues) that returns the value to use; every issue is
 * {code, message, path}, paths hold strings only.  Issues stand in the order
 * of the schema's members, unknown keys last.
 */

'use strict';

function typeName(value) {
    if (value === null) {
        return 'null';
    }

    if (Array.isArray(value)) {
        return 'array';
    }

    if (Number.isNaN(value)) {
        return 'NaN';
    }

    return typeof value;
}


function wrongType(expected, value, path, issues) {
    issues.push({
        code: 'invalid_type',
        message: `Invalid input: expected ${expected}, `
                 + `received ${typeName(value)}`,
        path,
        fatal: true,
    });
}


function measure(value, rules, path, issues) {
    const [kind, unit] = typeof value === 'string' ? ['string', 'characters']
                                                   : ['array', 'items'];

    if (rules.max !== undefined && value.length > rules.max) {
        issues.push({
            code: 'too_big',
            message: rules.maxText
                     || `Too big: expected ${kind} to have `
                        + `<=${rules.max} ${unit}`,
            path,
        });
    }

    if (rules.min !== undefined && value.length < rules.min) {
        issues.push({
            code: 'too_small',
            message: `Too small: expected ${kind} to have `
                     + `>=${rules.min} ${unit}`,
            path,
        });
    }
}


/* rules: {test, testText, min, max, maxText}. */
function string(rules) {
    const r = rules || {};

    return (value, path, issues) => {
        const isText = typeof value === 'string';

        if (!isText) {
            wrongType('string', value, path, issues);
        }

        if (isText && r.test && !r.test(value)) {
            issues.push({ code: 'invalid_format', message: r.testText, path });
        }

        /* A list has a length too, and zod measures it. */
        if (isText || Array.isArray(value)) {
            measure(value, r, path, issues);
        }

        return value;
    };
}


function pattern(re, max) {
    return string({
        test: (value) => re.test(value),
        testText: `Invalid string: must match pattern ${re}`,
        max,
    });
}


/* Query parameters are text; what does not look like a number is NaN. */
function number(rules) {
    return (value, path, issues) => {
        const n = Number(value);

        if (!Number.isFinite(n)) {
            wrongType('number', n, path, issues);

        } else if (rules.min !== undefined && n < rules.min) {
            issues.push({
                code: 'too_small',
                message: `Too small: expected number to be >=${rules.min}`,
                path,
            });

        } else if (rules.max !== undefined && n > rules.max) {
            issues.push({
                code: 'too_big',
                message: `Too big: expected number to be <=${rules.max}`,
                path,
            });
        }

        return n;
    };
}


const YES = ['true', '1', 'yes', 'on', 'y', 'enabled'];
const NO = ['false', '0', 'no', 'off', 'n', 'disabled'];

function flag() {
    return (value, path, issues) => {
        if (typeof value !== 'string') {
            wrongType('string', value, path, issues);
            return false;
        }

        const word = value.toLowerCase();

        if (!YES.includes(word) && !NO.includes(word)) {
            const words = YES.concat(NO).map((w) => `"${w}"`).join('|');

            issues.push({
                code: 'invalid_value',
                message: `Invalid option: expected one of ${words}`,
                path,
            });
        }

        return YES.includes(word);
    };
}


function optional(schema) {
    const checked = (value, path, issues) =>
        (value === undefined ? undefined : schema(value, path, issues));

    checked.optional = true;

    return checked;
}


/* kind: 'strict' refuses unknown keys, 'strip' drops, 'loose' keeps them. */
function object(shape, kind) {
    const known = Object.keys(shape);

    return (value, path, issues) => {
        if (typeName(value) !== 'object') {
            wrongType('object', value, path, issues);
            return value;
        }

        const result = kind === 'loose' ? { ...value } : {};

        for (const key of known) {
            const checked = shape[key](value[key], path.concat(key), issues);

            if (checked !== undefined) {
                result[key] = checked;
            }
        }

        if (kind === 'strict') {
            const unknown = Object.keys(value)
                .filter((key) => !Object.hasOwn(shape, key));

            if (unknown.length > 0) {
                issues.push({
                    code: 'unrecognized_keys',
                    message: `Unrecognized key${unknown.length > 1 ? 's' : ''}`
                             + ': '
                             + unknown.map((key) => `"${key}"`).join(', '),
                    path,
                    fatal: true,
                });
            }
        }

        return result;
    };
}


/* after(value) names what is wrong with a record whose members are right. */
function record(keySchema, valueSchema, after, transform) {
    return (value, path, issues) => {
        if (typeName(value) !== 'object') {
            wrongType('record', value, path, issues);
            return value;
        }

        const result = {};
        const mine = [];

        for (const key of Object.keys(value)) {
            const at = path.concat(key);
            const wrong = [];

            keySchema(key, at, wrong);

            if (wrong.length > 0) {
                mine.push({
                    code: 'invalid_key',
                    message: 'Invalid key in record',
                    path: at,
                    fatal: true,
                });
                continue;
            }

            result[key] = valueSchema(value[key], at, mine);
        }

        if (after && !mine.some((issue) => issue.fatal)) {
            for (const message of after(result)) {
                mine.push({ code: 'custom', message, path });
            }
        }

        issues.push(...mine);

        return transform && mine.length === 0 ? transform(result) : result;
    };
}


function array(schema) {
    return (value, path, issues) => {
        if (!Array.isArray(value)) {
            wrongType('array', value, path, issues);
            return value;
        }

        return value.map((item, i) =>
            schema(item, path.concat(String(i)), issues));
    };
}


/* The outcome of a check: {value} or {errors}, the latter as clients see. */
function check(schema, value) {
    const issues = [];
    const checked = schema(value, [], issues);

    if (issues.length === 0) {
        return { value: checked };
    }

    return {
        errors: issues.map(({ code, message, path }) =>
            ({ code, message, path })),
    };
}


module.exports = {
    string, pattern, number, flag, optional, object, record, array, check,
};
