/*
 * Copyright (C) nginx-nango authors
 *
 * A query is whatever a client wrote.  What it says wrongly is refused rather
 * than passed over: a list without its limit or its filter would be another
 * list than the one that was asked for.
 */


#include "nango_query.h"


#define NANGO_QUERY_CURSOR_LEN  8


static const char *nango_query_limit(nango_str_t args, unsigned char **pos,
    uint64_t *limit);
static const char *nango_query_wait(nango_str_t args, unsigned char **pos,
    uint64_t *wait);
static void nango_query_log(nango_events_query_t *q, nango_str_t value);
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
    const char     *error;
    nango_str_t     value;
    unsigned char  *pos, cursor[NANGO_QUERY_CURSOR_LEN];

    memset(q, 0, sizeof(nango_query_t));

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

    error = nango_query_limit(args, &pos, &q->limit);

    if (error != NULL) {
        return error;
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

    error = nango_query_wait(args, &pos, &q->wait);

    if (error != NULL) {
        return error;
    }

    if (q->wait != 0 && (!q->has_since || q->one)) {
        return "wait needs since, and no id";
    }

    return NULL;
}


const char *
nango_events_query_parse(nango_events_query_t *q, nango_str_t args,
    unsigned char *buf)
{
    const char     *error;
    nango_str_t     value;
    unsigned char  *pos;

    memset(q, 0, sizeof(nango_events_query_t));

    pos = buf;

    (void) nango_query_arg(args, "type", &pos, &q->type);

    if (nango_query_arg(args, "after", &pos, &value)) {

        if (nango_query_number(value, &q->after) != 0) {
            return "after must be the sequence that was returned as next";
        }

        q->has_after = 1;
    }

    if (nango_query_arg(args, "log", &pos, &value)) {
        nango_query_log(q, value);
    }

    error = nango_query_limit(args, &pos, &q->limit);

    if (error == NULL) {
        error = nango_query_wait(args, &pos, &q->wait);
    }

    if (error != NULL) {
        return error;
    }

    if (nango_query_arg(args, "body", &pos, &value)) {

        if (nango_query_number(value, &q->body) != 0) {
            return "body must be the sequence of an event";
        }

        q->has_body = 1;
    }

    return NULL;
}


const char *
nango_events_query_last(nango_events_query_t *q, nango_str_t id)
{
    const unsigned char  *colon;

    if (id.len == 0) {
        return NULL;
    }

    colon = memchr(id.data, ':', id.len);

    if (colon != NULL) {
        nango_query_log(q, nango_str(id.data, colon - id.data));

        id.len -= colon + 1 - id.data;
        id.data = colon + 1;
    }

    if (nango_query_number(id, &q->after) != 0) {
        return "Last-Event-ID must be the id of an event";
    }

    q->has_after = 1;

    return NULL;
}


static const char *
nango_query_limit(nango_str_t args, unsigned char **pos, uint64_t *limit)
{
    nango_str_t  value;

    *limit = NANGO_QUERY_LIMIT;

    if (nango_query_arg(args, "limit", pos, &value)
        && (nango_query_number(value, limit) != 0
            || *limit < 1 || *limit > NANGO_QUERY_LIMIT_MAX))
    {
        return "limit must be a number from 1 to 1000";
    }

    return NULL;
}


static const char *
nango_query_wait(nango_str_t args, unsigned char **pos, uint64_t *wait)
{
    nango_str_t  value;

    if (nango_query_arg(args, "wait", pos, &value)
        && (nango_query_number(value, wait) != 0
            || *wait > NANGO_QUERY_WAIT_MAX))
    {
        return "wait must be a number of seconds up to 55";
    }

    return NULL;
}


static void
nango_query_log(nango_events_query_t *q, nango_str_t value)
{
    q->has_log = 1;

    if (nango_unhex(q->log, NANGO_QUERY_LOG_LEN, value) != 0) {
        memset(q->log, 0, NANGO_QUERY_LOG_LEN);
    }
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
