/*
 * Copyright (C) nginx-nango authors
 *
 * The query of a request for connections or events, beside a reading of it that
 * splits, decodes and compares in the plainest way.
 */


#include "fuzz.h"

#include "nango_query.h"

#include <errno.h>
#include <strings.h>


/* The decoded value of a name's first occurrence, owned; NULL: none. */

static unsigned char *
plain_arg(nango_str_t args, const char *name, size_t *len)
{
    char            hex[3];
    size_t          i;
    nango_str_t     pair, key;
    unsigned char  *value;

    while (args.len) {
        pair = take(&args, '&');

        if (memchr(pair.data, '=', pair.len) == NULL) {
            continue;
        }

        key = take(&pair, '=');

        if (key.len != strlen(name)
            || strncasecmp((const char *) key.data, name, key.len) != 0)
        {
            continue;
        }

        value = malloc(pair.len + 1);
        check(value != NULL);

        for (i = 0, *len = 0; i < pair.len; i++) {
            value[*len] = pair.data[i];

            if (pair.data[i] == '+') {
                value[*len] = ' ';
            }

            if (pair.data[i] == '%' && i + 2 < pair.len) {
                memcpy(hex, pair.data + i + 1, 2);
                hex[2] = '\0';

                if (strspn(hex, "0123456789abcdefABCDEF") == 2) {
                    value[*len] = (unsigned char) strtoul(hex, NULL, 16);
                    i += 2;
                }
            }

            (*len)++;
        }

        value[*len] = '\0';

        return value;
    }

    return NULL;
}


/* 1, or 0 if it is no number of at most 63 bits. */

static int
plain_number(const unsigned char *value, size_t len, int base, uint64_t *n)
{
    const char  *digits;

    digits = (base == 16) ? "0123456789abcdefABCDEF" : "0123456789";

    if (len == 0 || strspn((const char *) value, digits) != len) {
        return 0;
    }

    errno = 0;
    *n = strtoull((const char *) value, NULL, base);

    return errno == 0 && (base == 16 || *n <= INT64_MAX);
}


/* The sentence for a number of that name, or NULL; *n is what it says. */

static int
plain_wrong(nango_str_t args, const char *name, uint64_t min, uint64_t max,
    int *has, uint64_t *n)
{
    int             wrong;
    size_t          len;
    unsigned char  *value;

    value = plain_arg(args, name, &len);
    *has = (value != NULL);

    wrong = value != NULL
            && (!plain_number(value, len, 10, n) || *n < min || *n > max);

    free(value);

    return wrong;
}


/* The same for a query of events, and for what was seen last. */

static void
check_events(nango_str_t args)
{
    int                    has;
    size_t                 i, len;
    uint64_t               n;
    const char            *error, *first;
    unsigned char         *buf, *value;
    nango_str_t            log, id;
    nango_events_query_t   q;

    static const struct {
        const char  *name;
        uint64_t     min;
        uint64_t     max;
    } numbers[] = {
        { "after", 0, INT64_MAX },
        { "limit", 1, 1000 },
        { "wait", 0, 55 },
        { "body", 0, INT64_MAX }
    };

    buf = malloc(args.len ? args.len : 1);
    check(buf != NULL);

    error = nango_events_query_parse(&q, args, buf);

    for (i = 0, first = NULL; i < 4 && first == NULL; i++) {
        n = (i == 1) ? 100 : 0;

        if (plain_wrong(args, numbers[i].name, numbers[i].min, numbers[i].max,
                        &has, &n))
        {
            first = numbers[i].name;

        } else {
            check(i != 0 || (q.after == n && q.has_after == has));
            check(i != 1 || q.limit == n);
            check(i != 2 || q.wait == n);
            check(i != 3 || (q.body == n && q.has_body == has));
        }
    }

    check((error == NULL) == (first == NULL));
    check(error == NULL || memcmp(error, first, strlen(first)) == 0);

    value = plain_arg(args, "type", &len);
    check((q.type.data != NULL) == (value != NULL));

    if (value != NULL) {
        check(inside(q.type, buf, args.len));
        check(nango_str_eq(q.type, nango_str(value, len)));
    }

    free(value);
    free(buf);

    /* The whole as an id. */

    memset(&q, 0, sizeof(q));
    error = nango_events_query_last(&q, args);

    id = args;
    log = nango_str(NULL, 0);

    if (id.len && memchr(id.data, ':', id.len) != NULL) {
        log = take(&id, ':');
    }

    value = malloc(id.len + 1);
    check(value != NULL);

    if (id.len) {
        memcpy(value, id.data, id.len);
    }

    value[id.len] = '\0';

    n = 0;
    has = strlen((char *) value) == id.len
          && plain_number(value, id.len, 10, &n);

    check((error == NULL) == (has || args.len == 0));
    check(q.has_after == has);
    check(q.after == n || !has);
    check(q.has_log == (log.data != NULL) || args.len == 0);

    free(value);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int             has;
    size_t          i, len;
    uint64_t        n;
    nango_str_t     args;
    const char     *error;
    nango_query_t   q;
    unsigned char  *buf, *value, hex[NANGO_KEY_LEN * 2 + 1];

    static const char  *names[] = {
        "integration", "integration_id", "provider_config_key"
    };

    args = nango_str(data, size);

    check_events(args);

    buf = malloc(size ? size : 1);
    check(buf != NULL);

    error = nango_query_parse(&q, args, buf);

    /* What is wrong first is what is told. */

    value = plain_arg(args, "limit", &len);

    if (value != NULL
        && (!plain_number(value, len, 10, &n) || n < 1 || n > 1000))
    {
        check(error != NULL && memcmp(error, "limit ", 6) == 0);
        goto done;
    }

    check(q.limit == (value ? n : 100));
    free(value);

    value = plain_arg(args, "cursor", &len);

    if (value != NULL && (len != 16 || !plain_number(value, len, 16, &n))) {
        check(error != NULL && memcmp(error, "cursor ", 7) == 0);
        goto done;
    }

    check(q.before == (value ? n : 0));
    free(value);

    value = plain_arg(args, "since", &len);

    if (value != NULL && !plain_number(value, len, 10, &n)) {
        check(error != NULL && memcmp(error, "since ", 6) == 0);
        goto done;
    }

    check(q.has_since == (value != NULL));
    check(q.since == (value ? n : 0));
    free(value);

    value = NULL;
    n = 0;

    if (plain_wrong(args, "wait", 0, 55, &has, &n)) {
        check(error != NULL && memcmp(error, "wait ", 5) == 0);
        goto done;
    }

    value = plain_arg(args, "id", &len);

    if (n != 0 && (!q.has_since || value != NULL)) {
        check(error != NULL && memcmp(error, "wait needs ", 11) == 0);
        goto done;
    }

    check(error == NULL);
    check(q.wait == n);

    check(q.one == (value != NULL));

    if (value != NULL) {
        nango_hex(hex, q.key, NANGO_KEY_LEN);
        hex[sizeof(hex) - 1] = 0;

        if (len == sizeof(hex) - 1
            && strspn((char *) value, "0123456789abcdefABCDEF") == len)
        {
            check(strncasecmp((char *) hex, (char *) value, len) == 0);

        } else {
            check(strspn((char *) hex, "0") == sizeof(hex) - 1);
        }
    }

    free(value);

    for (i = 0, value = NULL; i < 3 && value == NULL; i++) {
        value = plain_arg(args, names[i], &len);
    }

    check((q.integration.data != NULL) == (value != NULL));

    if (value != NULL) {
        check(inside(q.integration, buf, size));
        check(nango_str_eq(q.integration, nango_str(value, len)));
    }

done:

    free(value);
    free(buf);

    return 0;
}
