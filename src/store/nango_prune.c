/*
 * Copyright (C) nginx-nango authors
 *
 * Pruning the log from its old end.  What may go is found out in snapshots,
 * and only then is the log's writer lock taken, which acknowledging waits for:
 * for as long as it takes to delete so many keys.
 *
 * An event is owed to the subscribers of its environment whose cursor is not
 * past it, and to those that have a row of it.  A subscriber that cannot be
 * read may be owed everything.  Those of other environments hold nothing up.
 *
 * A record that cannot be read, and one from the future, which a clock that
 * has been set back leaves behind, is as old as the next one that tells.
 *
 * A body file gets back its owner's right to write before the commit that
 * makes it an orphan: should the process die before it removes the file, the
 * sweep does.
 */


#include "nango_log.h"
#include "nango_rows.h"

#include <errno.h>
#include <stdlib.h>


/* Events that are looked at for each that may be pruned in a call. */
#define NANGO_PRUNE_LOOK  8

/* What an event takes in a page besides its key and record, about. */
#define NANGO_PRUNE_NODE  16


/* An environment's events up to there are behind all of its cursors. */

typedef struct {
    nango_str_t           environment;  /* in the state */
    uint64_t              limit;
} nango_prune_limit_t;

typedef struct {
    uint64_t              sequence;
    size_t                size;
    int                   readable;
    int                   early;
    int                   body_file;
    unsigned char         environment[NANGO_KEY_LEN];
    unsigned char         body[NANGO_BODY_NAME_LEN];
} nango_prune_event_t;

typedef struct {
    nango_store_t                 *store;
    const nango_prune_options_t   *options;
    uint64_t                       from;
    nango_pruned_t                *pruned;

    MDB_txn                       *state;
    MDB_txn                       *log;
    MDB_cursor                    *events;
    MDB_cursor                    *owed;
    uint64_t                       applied;
    uint64_t                       last;
    uint64_t                       over;    /* bytes too many */
    uint64_t                       row;     /* the next one's, 0: none */

    nango_prune_limit_t           *limits;
    size_t                         nlimits;
    size_t                         size;
    uint64_t                       unread;  /* limit for all */

    nango_names_t                  names;
    nango_prune_event_t           *list;
    size_t                         n;       /* to be pruned */
    size_t                         pending; /* behind these: if the next is */

    MDB_txn                       *txn;
} nango_prune_t;


static nango_rc_e nango_prune_look(void *data, nango_error_t *err);
static int nango_prune_begin(nango_prune_t *p);
static void nango_prune_end(nango_prune_t *p);
static int nango_prune_limits(nango_prune_t *p);
static int nango_prune_limit(nango_prune_t *p, nango_str_t environment,
    uint64_t cursor);
static int nango_prune_over(nango_prune_t *p);
static int nango_prune_walk(nango_prune_t *p);
static void nango_prune_pause(nango_prune_t *p, uint64_t sequence);
static int nango_prune_event(nango_prune_t *p, uint64_t sequence,
    nango_str_t data, int *stop);
static int nango_prune_owed(nango_prune_t *p, uint64_t sequence, int *owed);
static nango_rc_e nango_prune_delete(void *data, nango_error_t *err);
static int nango_prune_list(nango_prune_t *p);
static int nango_prune_count(nango_prune_t *p,
    const nango_prune_event_t *event, uint64_t n);


nango_rc_e
nango_log_prune(nango_store_t *store, const nango_prune_options_t *options,
    uint64_t *from, nango_pruned_t *pruned, nango_error_t *err)
{
    size_t          i;
    nango_rc_e      rc;
    nango_prune_t   p;

    memset(pruned, 0, sizeof(nango_pruned_t));
    memset(&p, 0, sizeof(nango_prune_t));

    p.store = store;
    p.options = options;
    p.from = *from;
    p.pruned = pruned;

    if (options->max_events == 0) {
        return NANGO_OK;
    }

    p.list = malloc(options->max_events * sizeof(nango_prune_event_t));
    if (p.list == NULL) {
        return nango_error_set(err, NANGO_ENOMEM, "no memory");
    }

    rc = nango_store_within(store, -1, nango_prune_look, &p, err);

    if (rc == NANGO_OK && p.n != 0) {

        for (i = 0; i < p.n; i++) {

            if (p.list[i].body_file) {
                nango_body_doubt(store, nango_str(p.list[i].body,
                                                  NANGO_BODY_NAME_LEN));
            }
        }

        rc = nango_store_within(store, 0, nango_prune_delete, &p, err);
    }

    if (rc == NANGO_OK) {

        for (i = 0; i < p.n; i++) {

            if (p.list[i].body_file) {
                nango_body_remove(store, nango_str(p.list[i].body,
                                                   NANGO_BODY_NAME_LEN));
            }
        }

        *from = p.from;

    } else {
        memset(pruned, 0, sizeof(nango_pruned_t));
    }

    free(p.list);
    free(p.limits);

    return rc;
}


static nango_rc_e
nango_prune_look(void *data, nango_error_t *err)
{
    nango_prune_t *p = data;

    int          rc;
    const char  *file;

    file = "state";

    rc = nango_prune_begin(p);

    if (rc == 0) {
        rc = nango_prune_limits(p);
    }

    if (rc == 0) {
        file = "log";
        rc = nango_prune_over(p);
    }

    if (rc == 0) {
        rc = nango_prune_walk(p);
    }

    nango_prune_end(p);

    return nango_store_error(p->store, err, rc, "mdb_cursor_get()", file);
}


/* The state first: what it has applied is in the log that is seen then. */

static int
nango_prune_begin(nango_prune_t *p)
{
    int             rc;
    nango_store_t  *store;

    store = p->store;

    rc = mdb_txn_begin(store->state, NULL, MDB_RDONLY, &p->state);
    if (rc != 0) {
        p->state = NULL;
        return rc;
    }

    rc = nango_meta_u64(p->state, store->state_meta, "applied", &p->applied);

    if (rc == 0) {
        rc = mdb_cursor_open(p->state, store->owed, &p->owed);
    }

    if (rc == 0) {
        rc = mdb_txn_begin(store->log, NULL, MDB_RDONLY, &p->log);

        if (rc != 0) {
            p->log = NULL;
        }
    }

    if (rc == 0) {
        rc = mdb_cursor_open(p->log, store->events, &p->events);
    }

    return rc;
}


static void
nango_prune_end(nango_prune_t *p)
{
    if (p->owed != NULL) {
        mdb_cursor_close(p->owed);
    }

    if (p->events != NULL) {
        mdb_cursor_close(p->events);
    }

    if (p->log != NULL) {
        mdb_txn_abort(p->log);
    }

    if (p->state != NULL) {
        mdb_txn_abort(p->state);
    }
}


static int
nango_prune_limits(nango_prune_t *p)
{
    int                  rc;
    MDB_val              key, val;
    MDB_cursor          *cursor;
    nango_subscribed_t   s;

    p->unread = p->applied;

    rc = mdb_cursor_open(p->state, p->store->subscribers, &cursor);
    if (rc != 0) {
        return rc;
    }

    rc = mdb_cursor_get(cursor, &key, &val, MDB_FIRST);

    while (rc == 0) {

        if (nango_subscribed_decode(&s, nango_str(val.mv_data, val.mv_size))
            != 0)
        {
            p->unread = 0;

        } else {
            rc = nango_prune_limit(p, s.environment, s.cursor);
            if (rc != 0) {
                break;
            }
        }

        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }

    mdb_cursor_close(cursor);

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


static int
nango_prune_limit(nango_prune_t *p, nango_str_t environment, uint64_t cursor)
{
    size_t                i, size;
    nango_prune_limit_t  *limits;

    for (i = 0; i < p->nlimits; i++) {

        if (nango_str_eq(p->limits[i].environment, environment)) {

            if (cursor < p->limits[i].limit) {
                p->limits[i].limit = cursor;
            }

            return 0;
        }
    }

    if (p->nlimits == p->size) {
        size = p->size ? p->size * 2 : 8;

        limits = realloc(p->limits, size * sizeof(nango_prune_limit_t));
        if (limits == NULL) {
            return ENOMEM;
        }

        p->limits = limits;
        p->size = size;
    }

    p->limits[p->nlimits].environment = environment;
    p->limits[p->nlimits].limit = cursor;
    p->nlimits++;

    return 0;
}


static int
nango_prune_over(nango_prune_t *p)
{
    int       rc;
    MDB_stat  stat;
    uint64_t  used, full;

    rc = mdb_stat(p->log, p->store->events, &stat);
    if (rc != 0) {
        return rc;
    }

    used = ((uint64_t) stat.ms_branch_pages + stat.ms_leaf_pages
            + stat.ms_overflow_pages) * stat.ms_psize;

    full = p->store->size / 100 * p->options->full_percent;

    p->over = (p->options->full_percent != 0 && used > full) ? used - full : 0;

    return 0;
}


static int
nango_prune_walk(nango_prune_t *p)
{
    int             rc, stop;
    size_t          n;
    MDB_val         key, val;
    uint64_t        sequence;
    unsigned char   buf[NANGO_OWED_KEY_LEN];

    rc = mdb_cursor_get(p->events, &key, &val, MDB_LAST);

    if (rc == 0 && key.mv_size == NANGO_SEQUENCE_LEN) {
        p->last = nango_get_be64(key.mv_data);
    }

    memset(buf, 0, NANGO_OWED_KEY_LEN);
    nango_put_be64(buf, p->from);

    if (rc == 0) {
        key = nango_val(buf, NANGO_OWED_KEY_LEN);
        rc = mdb_cursor_get(p->owed, &key, &val, MDB_SET_RANGE);

        if (rc == 0 && key.mv_size == NANGO_OWED_KEY_LEN) {
            p->row = nango_get_be64(key.mv_data);
        }

        if (rc == 0 || rc == MDB_NOTFOUND) {
            key = nango_val(buf, NANGO_SEQUENCE_LEN);
            rc = mdb_cursor_get(p->events, &key, &val, MDB_SET_RANGE);
        }
    }

    stop = 0;

    for (n = 0; rc == 0; n++) {

        if (key.mv_size != NANGO_SEQUENCE_LEN) {
            return MDB_CORRUPTED;
        }

        sequence = nango_get_be64(key.mv_data);

        if (sequence >= p->last || sequence > p->applied) {
            break;
        }

        if (p->n + p->pending == p->options->max_events
            || n >= NANGO_PRUNE_LOOK * p->options->max_events)
        {
            nango_prune_pause(p, sequence);
            return 0;
        }

        rc = nango_prune_event(p, sequence,
                               nango_str(val.mv_data, val.mv_size), &stop);
        if (rc != 0 || stop) {
            break;
        }

        rc = mdb_cursor_get(p->events, &key, &val, MDB_NEXT);
    }

    /* The end of a round: the next one begins at the beginning. */

    p->from = 0;

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


/* A call of its own for more that do not tell how old they are. */

static void
nango_prune_pause(nango_prune_t *p, uint64_t sequence)
{
    p->pruned->more = 1;
    p->from = sequence;

    if (p->pending && p->n) {
        p->from = p->list[p->n].sequence;
    }
}


static int
nango_prune_event(nango_prune_t *p, uint64_t sequence, nango_str_t data,
    int *stop)
{
    int                    rc, owed;
    size_t                 i;
    uint64_t               limit, now;
    nango_record_t         rec;
    const unsigned char   *key;
    nango_prune_event_t   *e;

    now = p->options->now_ms;
    e = &p->list[p->n + p->pending];

    memset(e, 0, sizeof(nango_prune_event_t));

    e->sequence = sequence;
    e->size = data.len + NANGO_SEQUENCE_LEN + NANGO_PRUNE_NODE;
    e->readable = (nango_record_decode(&rec, data) == 0);

    e->early = (e->readable && rec.received_at <= now
                && now - rec.received_at <= p->options->retain_ms);

    /* What comes later is not older, but for a little. */

    if (e->early && !p->over) {
        *stop = 1;
        return 0;
    }

    owed = 0;

    rc = nango_prune_owed(p, sequence, &owed);

    if (rc != 0 || owed) {
        return rc;
    }

    limit = p->unread;

    for (i = 0; i < p->nlimits; i++) {

        if (p->limits[i].limit < limit
            && (!e->readable
                || nango_str_eq(p->limits[i].environment, rec.environment)))
        {
            limit = p->limits[i].limit;
        }
    }

    if (sequence > limit) {
        return 0;
    }

    if (e->readable) {
        key = nango_names_key(&p->names, rec.environment);
        if (key == NULL) {
            return ENOMEM;
        }

        memcpy(e->environment, key, NANGO_KEY_LEN);

        if (rec.body_file) {
            e->body_file = 1;
            memcpy(e->body, rec.body.data, NANGO_BODY_NAME_LEN);
        }
    }

    if (!p->over && (!e->readable || rec.received_at > now)) {
        p->pending++;
        return 0;
    }

    p->over -= (e->size < p->over) ? e->size : p->over;

    p->n += p->pending + 1;
    p->pending = 0;

    return 0;
}


/* Rows and events are in the same order. */

static int
nango_prune_owed(nango_prune_t *p, uint64_t sequence, int *owed)
{
    int      rc;
    MDB_val  key, val;

    while (p->row != 0 && p->row < sequence) {

        rc = mdb_cursor_get(p->owed, &key, &val, MDB_NEXT);

        if (rc != 0 && rc != MDB_NOTFOUND) {
            return rc;
        }

        p->row = (rc == 0 && key.mv_size == NANGO_OWED_KEY_LEN)
                 ? nango_get_be64(key.mv_data) : 0;
    }

    *owed = (p->row == sequence);

    return 0;
}


static nango_rc_e
nango_prune_delete(void *data, nango_error_t *err)
{
    nango_prune_t *p = data;

    int         rc;
    nango_rc_e  code;

    code = nango_store_begin(p->store, 0, &p->txn, err);
    if (code != NANGO_OK) {
        return code;
    }

    rc = nango_prune_list(p);

    if (rc != 0) {
        mdb_txn_abort(p->txn);
        return nango_store_error(p->store, err, rc, "mdb_del()", "log");
    }

    return nango_store_commit(p->store, p->txn, err, "log");
}


/* What is gone already has been counted by whoever pruned it. */

static int
nango_prune_list(nango_prune_t *p)
{
    int                         rc;
    size_t                      i;
    MDB_val                     key;
    uint64_t                    n;
    unsigned char               buf[NANGO_SEQUENCE_LEN];
    const nango_prune_event_t  *e, *counted;

    n = 0;
    counted = NULL;

    for (i = 0; i < p->n; i++) {
        e = &p->list[i];

        nango_put_be64(buf, e->sequence);
        key = nango_val(buf, NANGO_SEQUENCE_LEN);

        rc = mdb_del(p->txn, p->store->events, &key, NULL);

        if (rc == MDB_NOTFOUND) {
            continue;
        }

        if (rc != 0) {
            return rc;
        }

        p->pruned->pruned++;
        p->pruned->early += e->early;

        if (!e->readable) {
            continue;
        }

        if (counted != NULL
            && memcmp(counted->environment, e->environment, NANGO_KEY_LEN)
               != 0)
        {
            rc = nango_prune_count(p, counted, n);
            if (rc != 0) {
                return rc;
            }

            n = 0;
        }

        counted = e;
        n++;
    }

    return n ? nango_prune_count(p, counted, n) : 0;
}


/*
 * n of its environment up to this one.  What was owed when later ones went
 * goes after them.
 */

static int
nango_prune_count(nango_prune_t *p, const nango_prune_event_t *event,
    uint64_t n)
{
    int            rc;
    MDB_val        key, val;
    uint64_t       pruned, last;
    unsigned char  buf[NANGO_PRUNED_LEN];

    rc = nango_pruned_get(p->txn, p->store, event->environment, &pruned,
                          &last);
    if (rc != 0) {
        return rc;
    }

    if (last < event->sequence) {
        last = event->sequence;
    }

    nango_put_le(buf, pruned + n, 8);
    nango_put_le(buf + 8, last, 8);

    key = nango_val(event->environment, NANGO_KEY_LEN);
    val = nango_val(buf, NANGO_PRUNED_LEN);

    return mdb_put(p->txn, p->store->pruned, &key, &val, 0);
}
