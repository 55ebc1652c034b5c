/*
 * Copyright (C) nginx-nango authors
 *
 * Makes a subscriber in a store that nobody else has open: of the events in
 * the log the first DEAD ones are dead, the next WAITING ones have failed once,
 * and the others are delivered.
 *
 *     owe STORE ENVIRONMENT NAME DEAD WAITING [park]
 */

#include "nango_delivery.h"
#include "nango_fold.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>


static int
failed(const char *what, nango_error_t *err)
{
    fprintf(stderr, "%s: %s\n", what, err->text);
    return 1;
}


/* What is left of the log, settled. */

static int
settle(nango_store_t *store, const nango_subscriber_t *s, uint64_t cursor,
    size_t dead, size_t waiting, int park, uint64_t now)
{
    int                     more;
    size_t                  i, n, size;
    uint64_t                position;
    nango_error_t           err;
    nango_folded_t          folded;
    nango_settled_t        *settled;
    nango_delivery_t       *list, *d;
    nango_settlement_t      settlement;
    nango_fold_options_t    options;
    nango_delivery_read_t   how;

    memset(&how, 0, sizeof(how));

    how.now_ms = now;
    how.max_events = 100000;
    how.max_bytes = 1 << 28;

    list = NULL;
    settled = NULL;
    n = 0;
    size = 0;
    position = cursor;

    if (nango_delivery_read(store, s, &how, &position, &more, &list, &settled,
                            &n, &size, &err)
        != NANGO_OK)
    {
        return failed("nango_delivery_read()", &err);
    }

    size = n;

    for (d = list; d; d = d->next) {
        size++;
    }

    settled = realloc(settled, (size + 1) * sizeof(nango_settled_t));
    if (settled == NULL) {
        return 1;
    }

    for (i = 0; list; i++) {
        d = list;
        list = d->next;

        memset(&settled[n], 0, sizeof(nango_settled_t));
        memcpy(settled[n].lane, d->lane, NANGO_KEY_LEN);

        settled[n].sequence = d->sequence;

        if (i < dead) {
            settled[n].kind = NANGO_SETTLED_DEAD;
            settled[n].attempts = 7;
            settled[n].status = 500;

        } else if (i < dead + waiting) {
            settled[n].kind = NANGO_SETTLED_WAITING;
            settled[n].attempts = 1;
            settled[n].status = 503;
            settled[n].next_at = now + 86400000;
        }

        n++;
        nango_delivery_free(d);
    }

    memset(&settlement, 0, sizeof(settlement));
    memset(&options, 0, sizeof(options));

    memcpy(settlement.key, s->key, NANGO_KEY_LEN);

    settlement.cursor_before = cursor;
    settlement.cursor = position;
    settlement.settled = settled;
    settlement.nsettled = n;
    settlement.park = park;

    options.now_ms = now;
    options.retain_ms = 86400000;
    options.settlements = &settlement;
    options.nsettlements = 1;

    if (nango_fold(store, &options, &folded, &err) != NANGO_OK) {
        return failed("nango_fold()", &err);
    }

    free(settled);

    return settlement.stale;
}


int
main(int argc, char **argv)
{
    int                     rc;
    uint64_t                now;
    nango_store_t          *store;
    nango_error_t           err;
    nango_ledger_t          ledger;
    nango_reader_t         *reader;
    struct timespec         ts;
    nango_subscriber_t      s;
    nango_store_options_t   options;

    if (argc < 6) {
        return 2;
    }

    clock_gettime(CLOCK_REALTIME, &ts);
    now = (uint64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;

    memset(&options, 0, sizeof(options));
    options.path = argv[1];
    options.size = 64 << 20;

    if (nango_store_open(&store, &options, &err) != NANGO_OK) {
        return failed("nango_store_open()", &err);
    }

    memset(&s, 0, sizeof(s));
    s.environment = nango_str(argv[2], strlen(argv[2]));
    s.name = nango_str(argv[3], strlen(argv[3]));
    s.from_start = 1;
    s.repairs = 1;
    s.max_age_ms = 86400000;

    if (nango_subscriber_key(s.key, s.environment, s.name) != 0
        || nango_delivery_register(store, &s, 1, now, &err) != NANGO_OK)
    {
        return failed("nango_delivery_register()", &err);
    }

    reader = nango_reader_create(store);

    if (reader == NULL || nango_reader_begin(reader, &err) != NANGO_OK) {
        return failed("nango_reader_begin()", &err);
    }

    rc = nango_reader_ledger(reader, s.key, &ledger, &err);

    nango_reader_end(reader);
    nango_reader_free(reader);

    if (rc != 1) {
        return failed("nango_reader_ledger()", &err);
    }

    rc = settle(store, &s, ledger.cursor, strtoul(argv[4], NULL, 10),
                strtoul(argv[5], NULL, 10), argc > 6, now);

    nango_store_close(store);

    return rc;
}
