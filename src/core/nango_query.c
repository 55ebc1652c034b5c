/*
 * Copyright (C) nginx-nango authors
 *
 * A query is whatever a client wrote.  What it says wrongly is refused rather
 * than passed over: a list without its limit or its filter would be another
 * list than the one that was asked for.
 */


#include "nango_query.h"


#define NANGO_QUERY_CURSOR_LEN  8


static int nango_query_arg(nango_str_t args, const char *name,
    unsigned char **pos, nango_str_t *value);
static nango_str_t nango_query_find(nango_str_t args, nango_str_t name);
static int nango_query_number(nango_str_t s, uint64_t *n);


/* Nango's own names for it. */

static const char  *nango_query_integrations[] = {
    "integration", "integration_id", "provider_config_key"
};


static inline unsigned char
nango_query_lower(unsigned char c)
{
    return (c >= 'A' && c <= 'Z') ? (unsigned char) (c | 0x20) : c;
}


const char *
nango_query_parse(nango_query_t *q, nango_str_t args, unsigned char *buf)
{
    size_t          i;
    nango_str_t     value;
    unsigned char  *pos, cursor[NANGO_QUERY_CURSOR_LEN];

    memset(q, 0, sizeof(nango_query_t));

    q->limit = NANGO_QUERY_LIMIT;
    pos = buf;

    for (i = 0; i < 3; i++) {
        if (nango_query_arg(args, nango_query_integrations[i], &pos,
                            &q->integration))
        {
            break;
        }
    }

    if (nango_query_arg(args, "id", &pos, &value)) {
        q->one = 1;

        if (nango_unhex(q->key, NANGO_KEY_LEN, value) != 0) {
            memset(q->key, 0, NANGO_KEY_LEN);
        }
    }

    if (nango_query_arg(args, "limit", &pos, &value)
        && (nango_query_number(value, &q->limit) != 0
            || q->limit < 1 || q->limit > NANGO_QUERY_LIMIT_MAX))
    {
        return "limit must be a number from 1 to 1000";
    }

    if (nango_query_arg(args, "cursor", &pos, &value)) {

        if (nango_unhex(cursor, NANGO_QUERY_CURSOR_LEN, value) != 0) {
            return "cursor must be one that a list has returned as next";
        }

        for (i = 0; i < NANGO_QUERY_CURSOR_LEN; i++) {
            q->before = (q->before << 8) | cursor[i];
        }
    }

    if (nango_query_arg(args, "since", &pos, &value)) {

        if (nango_query_number(value, &q->since) != 0) {
            return "since must be the sequence that a list has returned";
        }

        q->has_since = 1;
    }

    return NULL;
}


/*
 * 1 and the decoded value at *pos, which moves behind it; 0 if it is not
 * there.  Values do not overlap in the query, so there is room for all.
 */

static int
nango_query_arg(nango_str_t args, const char *name, unsigned char **pos,
    nango_str_t *value)
{
    size_t          i;
    nango_str_t     raw;
    unsigned char  *p;

    raw = nango_query_find(args, nango_str(name, strlen(name)));

    if (raw.data == NULL) {
        return 0;
    }

    p = *pos;

    for (i = 0; i < raw.len; i++) {

        if (raw.data[i] == '%' && raw.len - i > 2
            && nango_unhex(p, 1, nango_str(raw.data + i + 1, 2)) == 0)
        {
            p++;
            i += 2;
            continue;
        }

        *p++ = (raw.data[i] == '+') ? ' ' : raw.data[i];
    }

    *value = nango_str(*pos, p - *pos);
    *pos = p;

    return 1;
}


/* The raw value, absent if there is none of that name with a "=". */

static nango_str_t
nango_query_find(nango_str_t args, nango_str_t name)
{
    size_t                i;
    const unsigned char  *p, *end, *last;

    if (args.len == 0) {
        return nango_str(NULL, 0);
    }

    p = args.data;
    end = p + args.len;

    for ( ;; ) {
        last = memchr(p, '&', end - p);

        if (last == NULL) {
            last = end;
        }

        if ((size_t) (last - p) > name.len && p[name.len] == '=') {

            for (i = 0; i < name.len; i++) {
                if (nango_query_lower(p[i]) != name.data[i]) {
                    break;
                }
            }

            if (i == name.len) {
                p += name.len + 1;
                return nango_str(p, last - p);
            }
        }

        if (end - last < 2) {
            return nango_str(NULL, 0);
        }

        p = last + 1;
    }
}


static int
nango_query_number(nango_str_t s, uint64_t *n)
{
    size_t  i;

    *n = 0;

    if (s.len == 0) {
        return -1;
    }

    for (i = 0; i < s.len; i++) {

        if (s.data[i] < '0' || s.data[i] > '9'
            || *n > (INT64_MAX - (uint64_t) (s.data[i] - '0')) / 10)
        {
            return -1;
        }

        *n = *n * 10 + (uint64_t) (s.data[i] - '0');
    }

    return 0;
}
