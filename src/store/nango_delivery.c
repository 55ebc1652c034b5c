/*
 * Copyright (C) nginx-nango authors
 *
 * Reading what subscribers are owed: forwards from a position, and rows whose
 * time has come.  The state is looked at before the log, so that everything up
 * to what is applied is in the log that is read.
 *
 * What is read is put together in one piece of memory: the record as it is in
 * the log, whose strings stay where they are in it, and the owner's tags
 * behind it.
 */


#include "nango_queue.h"
#include "nango_rows.h"

#include <errno.h>
#include <stdlib.h>


typedef struct {
    nango_store_t               *store;
    const nango_subscriber_t    *subscriber;

    MDB_txn                     *state;
    MDB_txn                     *log;
    MDB_cursor                  *events;
    MDB_cursor                  *lanes;
    int                          held;      /* there are rows that wait */
    uint64_t                     applied;

    /* The last one's ids, in the log, and what was made of them. */
    nango_str_t                  integration;
    nango_str_t                  connection_id;
    unsigned char                key[NANGO_KEY_LEN];

    /* Where the next ones go. */
    nango_delivery_t           **tail;
    nango_delivery_t            *made;      /* and not there yet */
    size_t                       bytes;
    nango_settled_t            **settled;
    size_t                      *nsettled;
    size_t                      *size;
    int                          skipped;   /* the last of them is SKIPPED */

    /* For nango_delivery_read(). */
    const nango_delivery_read_t *how;
    uint64_t                     position;
    int                          more;

    /* For nango_delivery_due(). */
    uint64_t                     now_ms;
    size_t                       max_lanes;
    size_t                       max_bytes;
    int                        (*skip)(void *data,
                                       const unsigned char *lane);
    void                        *data;
    uint64_t                     next_at;

    nango_connection_t           connection;    /* the last member: large */
} nango_delivering_t;

typedef struct {
    nango_store_t               *store;
    const nango_subscriber_t    *subscribers;
    size_t                       n;
    uint64_t                     now_ms;
    MDB_txn                     *txn;
    MDB_txn                     *log;
    int                          unknown;
    unsigned char               *record;
} nango_registering_t;


static nango_rc_e nango_delivering(nango_delivering_t *r,
    nango_rc_e (*work)(void *data, nango_error_t *err),
    nango_delivery_t **deliveries, nango_error_t *err);
static int nango_delivering_begin(nango_delivering_t *r);
static void nango_delivering_end(nango_delivering_t *r);
static nango_rc_e nango_delivery_read_work(void *data, nango_error_t *err);
static int nango_delivery_read_from(nango_delivering_t *r);
static int nango_delivery_event(nango_delivering_t *r, uint64_t sequence,
    nango_str_t data, int *stop);
static int nango_delivery_wanted(const nango_subscriber_t *subscriber,
    const nango_record_t *rec);
static nango_rc_e nango_delivering_walk(nango_delivering_t *r, MDB_dbi dbi,
    int (*walk)(nango_delivering_t *r, MDB_cursor *cursor),
    nango_error_t *err);
static nango_rc_e nango_delivery_due_work(void *data, nango_error_t *err);
static int nango_delivery_due_lanes(nango_delivering_t *r,
    MDB_cursor *cursor);
static int nango_delivery_due_lane(nango_delivering_t *r,
    const unsigned char lane[NANGO_KEY_LEN], int *some);
static int nango_delivery_due_row(nango_delivering_t *r,
    const unsigned char lane[NANGO_KEY_LEN], uint64_t sequence);
static nango_rc_e nango_delivery_expired_work(void *data, nango_error_t *err);
static int nango_delivery_expired_rows(nango_delivering_t *r,
    MDB_cursor *cursor);
static int nango_delivery_expired_row(nango_delivering_t *r,
    uint64_t sequence, int *young);
static int nango_delivering_lane(nango_delivering_t *r, uint64_t sequence,
    const nango_record_t *rec, unsigned char lane[NANGO_KEY_LEN]);
static int nango_delivering_held(nango_delivering_t *r,
    const unsigned char lane[NANGO_KEY_LEN]);
static int nango_delivering_add(nango_delivering_t *r, uint64_t sequence,
    nango_str_t data, const nango_record_t *rec,
    const unsigned char lane[NANGO_KEY_LEN], uint32_t attempts, int row);
static void nango_delivering_owner(nango_delivery_t *d,
    const nango_connection_t *c, unsigned char *p);
static int nango_delivering_settle(nango_delivering_t *r, uint64_t sequence,
    const unsigned char *lane, nango_settled_e kind, nango_settled_t **settled);
static nango_rc_e nango_register_look(void *data, nango_error_t *err);
static nango_rc_e nango_register_make(void *data, nango_error_t *err);
static int nango_register_all(nango_registering_t *r);
static int nango_register_one(nango_registering_t *r,
    const nango_subscriber_t *subscriber, uint64_t applied, uint64_t first);


void
nango_delivery_free(nango_delivery_t *d)
{
    free(d);
}


nango_rc_e
nango_delivery_read(nango_store_t *store, const nango_subscriber_t *subscriber,
    const nango_delivery_read_t *how, uint64_t *position, int *more,
    nango_delivery_t **deliveries, nango_settled_t **settled,
    size_t *nsettled, size_t *settled_size, nango_error_t *err)
{
    nango_rc_e           rc;
    nango_delivering_t   r;

    memset(&r, 0, offsetof(nango_delivering_t, connection));

    r.store = store;
    r.subscriber = subscriber;
    r.settled = settled;
    r.nsettled = nsettled;
    r.size = settled_size;
    r.how = how;
    r.position = *position;

    rc = nango_delivering(&r, nango_delivery_read_work, deliveries, err);

    if (rc == NANGO_OK) {
        *position = r.position;
        *more = r.more;
    }

    return rc;
}


nango_rc_e
nango_delivery_due(nango_store_t *store, const nango_subscriber_t *subscriber,
    uint64_t now_ms, size_t max_lanes, size_t max_bytes,
    int (*skip)(void *data, const unsigned char lane[NANGO_KEY_LEN]),
    void *data, uint64_t *next_at, nango_delivery_t **deliveries,
    nango_settled_t **settled, size_t *nsettled, size_t *settled_size,
    nango_error_t *err)
{
    nango_rc_e           rc;
    nango_delivering_t   r;

    memset(&r, 0, offsetof(nango_delivering_t, connection));

    r.store = store;
    r.subscriber = subscriber;
    r.settled = settled;
    r.nsettled = nsettled;
    r.size = settled_size;
    r.now_ms = now_ms;
    r.max_lanes = max_lanes;
    r.max_bytes = max_bytes;
    r.skip = skip;
    r.data = data;

    rc = nango_delivering(&r, nango_delivery_due_work, deliveries, err);

    *next_at = (rc == NANGO_OK) ? r.next_at : 0;

    return rc;
}


/* On an error the lists are what they were. */

static nango_rc_e
nango_delivering(nango_delivering_t *r,
    nango_rc_e (*work)(void *data, nango_error_t *err),
    nango_delivery_t **deliveries, nango_error_t *err)
{
    size_t              nsettled;
    nango_rc_e          rc;
    nango_delivery_t   *d, *next, **tail;

    for (tail = deliveries; *tail; tail = &(*tail)->next) { /* void */ }

    r->tail = tail;
    nsettled = *r->nsettled;

    rc = nango_store_within(r->store, -1, work, r, err);

    if (rc == NANGO_OK) {
        return NANGO_OK;
    }

    free(r->made);

    for (d = *tail; d; d = next) {
        next = d->next;
        nango_delivery_free(d);
    }

    *tail = NULL;
    *r->nsettled = nsettled;

    return rc;
}


static int
nango_delivering_begin(nango_delivering_t *r)
{
    int              rc;
    MDB_val          key, val;
    nango_store_t   *store;
    unsigned char    buf[NANGO_LANES_KEY_LEN];

    store = r->store;

    rc = mdb_txn_begin(store->state, NULL, MDB_RDONLY, &r->state);
    if (rc != 0) {
        r->state = NULL;
        return rc;
    }

    rc = nango_meta_u64(r->state, store->state_meta, "applied", &r->applied);

    if (rc == 0) {
        rc = mdb_cursor_open(r->state, store->lanes, &r->lanes);
    }

    if (rc != 0) {
        return rc;
    }

    memset(buf, 0, NANGO_LANES_KEY_LEN);
    memcpy(buf, r->subscriber->key, NANGO_KEY_LEN);

    rc = nango_rows_seek(r->lanes, buf, NANGO_LANES_KEY_LEN, NANGO_KEY_LEN,
                         &key, &val);

    r->held = (rc == 0);

    if (rc != 0 && rc != MDB_NOTFOUND) {
        return rc;
    }

    rc = mdb_txn_begin(store->log, NULL, MDB_RDONLY, &r->log);
    if (rc != 0) {
        r->log = NULL;
        return rc;
    }

    return mdb_cursor_open(r->log, store->events, &r->events);
}


static void
nango_delivering_end(nango_delivering_t *r)
{
    if (r->lanes != NULL) {
        mdb_cursor_close(r->lanes);
    }

    if (r->events != NULL) {
        mdb_cursor_close(r->events);
    }

    if (r->log != NULL) {
        mdb_txn_abort(r->log);
    }

    if (r->state != NULL) {
        mdb_txn_abort(r->state);
    }
}


static nango_rc_e
nango_delivery_read_work(void *data, nango_error_t *err)
{
    nango_delivering_t *r = data;

    int  rc;

    rc = nango_delivering_begin(r);

    if (rc == 0) {
        rc = nango_delivery_read_from(r);
    }

    nango_delivering_end(r);

    return nango_store_error(r->store, err, rc, "reading", "log");
}


static int
nango_delivery_read_from(nango_delivering_t *r)
{
    int             rc, stop;
    size_t          n;
    MDB_val         key, val;
    uint64_t        sequence;
    unsigned char   buf[NANGO_SEQUENCE_LEN];

    if (r->position >= r->applied) {
        return 0;
    }

    stop = 0;

    nango_put_be64(buf, r->position + 1);
    key = nango_val(buf, NANGO_SEQUENCE_LEN);

    rc = mdb_cursor_get(r->events, &key, &val, MDB_SET_RANGE);

    for (n = 0; rc == 0; n++) {

        if (key.mv_size != NANGO_SEQUENCE_LEN) {
            return MDB_CORRUPTED;
        }

        sequence = nango_get_be64(key.mv_data);

        if (sequence > r->applied) {
            break;
        }

        if (n && (n >= r->how->max_events || r->bytes >= r->how->max_bytes)) {
            r->more = 1;
            return 0;
        }

        rc = nango_delivery_event(r, sequence,
                                  nango_str(val.mv_data, val.mv_size), &stop);

        if (rc != 0) {
            return rc;
        }

        if (stop) {
            r->more = 1;
            return 0;
        }

        r->position = sequence;

        rc = mdb_cursor_get(r->events, &key, &val, MDB_NEXT);
    }

    if (rc != 0 && rc != MDB_NOTFOUND) {
        return rc;
    }

    /* What is applied and not there any more is not waited for. */

    r->position = r->applied;

    return 0;
}


static int
nango_delivery_event(nango_delivering_t *r, uint64_t sequence,
    nango_str_t data, int *stop)
{
    int                         rc, held;
    nango_record_t              rec;
    nango_settled_t            *settled;
    const nango_subscriber_t   *subscriber;
    const nango_delivery_read_t *how;
    unsigned char               lane[NANGO_KEY_LEN];

    how = r->how;
    subscriber = r->subscriber;

    if (nango_record_decode(&rec, data) != 0
        || !nango_str_eq(rec.environment, subscriber->environment))
    {
        return 0;
    }

    if (!nango_delivery_wanted(subscriber, &rec)) {

        if (r->skipped) {
            settled = &(*r->settled)[*r->nsettled - 1];

        } else {
            rc = nango_delivering_settle(r, sequence, NULL,
                                         NANGO_SETTLED_SKIPPED, &settled);
            if (rc != 0) {
                return rc;
            }

            r->skipped = 1;
        }

        settled->sequence = sequence;
        settled->count++;

        return 0;
    }

    if (how->expire
        && (how->now_ms < rec.received_at
            || how->now_ms - rec.received_at <= subscriber->max_age_ms))
    {
        *stop = 1;
        return 0;
    }

    r->skipped = 0;

    rc = nango_delivering_lane(r, sequence, &rec, lane);
    if (rc != 0) {
        return rc;
    }

    if (how->expire) {
        return nango_delivering_settle(r, sequence, lane, NANGO_SETTLED_DEAD,
                                       &settled);
    }

    held = nango_delivering_held(r, lane);

    if (held == 0) {
        return nango_delivering_settle(r, sequence, lane,
                                       NANGO_SETTLED_WAITING, &settled);
    }

    return (held == MDB_NOTFOUND)
           ? nango_delivering_add(r, sequence, data, &rec, lane, 0, 0) : held;
}


/* Types that are not known here are OTHER. */

static int
nango_delivery_wanted(const nango_subscriber_t *subscriber,
    const nango_record_t *rec)
{
    unsigned  type;

    if (rec->source == NANGO_SOURCE_REPAIR && !subscriber->repairs) {
        return 0;
    }

    if (subscriber->types == 0) {
        return 1;
    }

    type = rec->type;

    if (type > NANGO_TYPE_FORWARD) {
        type = NANGO_TYPE_OTHER;
    }

    return (subscriber->types & NANGO_DELIVERY_TYPE(type)) != 0;
}


static nango_rc_e
nango_delivery_due_work(void *data, nango_error_t *err)
{
    nango_delivering_t *r = data;

    return nango_delivering_walk(r, r->store->due, nango_delivery_due_lanes,
                                 err);
}


/* Over a table of the state, if the subscriber is there. */

static nango_rc_e
nango_delivering_walk(nango_delivering_t *r, MDB_dbi dbi,
    int (*walk)(nango_delivering_t *r, MDB_cursor *cursor), nango_error_t *err)
{
    int          rc;
    MDB_cursor  *cursor;

    rc = nango_delivering_begin(r);

    if (rc == 0 && r->held) {
        rc = mdb_cursor_open(r->state, dbi, &cursor);

        if (rc == 0) {
            rc = walk(r, cursor);
            mdb_cursor_close(cursor);
        }
    }

    nango_delivering_end(r);

    return nango_store_error(r->store, err, rc, "reading", "state");
}


/*
 * None waits for longer than NANGO_QUEUE_RETRY_MAX: what is further ahead was
 * written by a clock that has been set back since, and is due.
 */

static int
nango_delivery_due_lanes(nango_delivering_t *r, MDB_cursor *cursor)
{
    int             rc, some;
    size_t          n;
    MDB_val         key, val;
    uint64_t        time;
    unsigned char   buf[NANGO_DUE_KEY_LEN], lane[NANGO_KEY_LEN];

    n = 0;

    memset(buf, 0, NANGO_DUE_KEY_LEN);
    memcpy(buf, r->subscriber->key, NANGO_KEY_LEN);

    rc = nango_rows_seek(cursor, buf, NANGO_DUE_KEY_LEN, NANGO_KEY_LEN, &key,
                         &val);

    while (rc == 0) {
        time = nango_get_be64((unsigned char *) key.mv_data + NANGO_KEY_LEN);
        memcpy(lane, (unsigned char *) key.mv_data + NANGO_KEY_LEN + 8,
               NANGO_KEY_LEN);

        if (r->skip == NULL || !r->skip(r->data, lane)) {

            if (time > r->now_ms
                && time - r->now_ms <= NANGO_QUEUE_RETRY_MAX)
            {
                /* The first of them; and on behind the last that may be. */

                r->next_at = time;

                nango_put_be64(buf + NANGO_KEY_LEN,
                               r->now_ms + NANGO_QUEUE_RETRY_MAX + 1);

                rc = nango_rows_seek(cursor, buf, NANGO_DUE_KEY_LEN,
                                     NANGO_KEY_LEN, &key, &val);
                continue;
            }

            if (n >= r->max_lanes || (n && r->bytes >= r->max_bytes)) {
                time = (time < r->now_ms) ? time : r->now_ms;
                r->next_at = time ? time : 1;
                return 0;
            }

            some = 0;

            rc = nango_delivery_due_lane(r, lane, &some);
            if (rc != 0) {
                return rc;
            }

            n += some;
        }

        rc = nango_rows_step(cursor, buf, NANGO_DUE_KEY_LEN, NANGO_KEY_LEN,
                             &key, &val);
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


/* One row at least, however large. */

static int
nango_delivery_due_lane(nango_delivering_t *r,
    const unsigned char lane[NANGO_KEY_LEN], int *some)
{
    int             n, rc;
    MDB_val         key, val;
    unsigned char   buf[NANGO_LANES_KEY_LEN];

    nango_lanes_key(buf, r->subscriber->key, lane, 0);

    rc = nango_rows_seek(r->lanes, buf, NANGO_LANES_KEY_LEN,
                         2 * NANGO_KEY_LEN, &key, &val);

    for (n = 0; rc == 0 && n < NANGO_DELIVERY_LANE; n++) {

        if (n && r->bytes >= r->max_bytes) {
            break;
        }

        rc = nango_delivery_due_row(r, lane,
                               nango_get_be64((unsigned char *) key.mv_data
                                              + 2 * NANGO_KEY_LEN));
        if (rc != 0) {
            return rc;
        }

        *some = 1;

        rc = nango_rows_step(r->lanes, buf, NANGO_LANES_KEY_LEN,
                             2 * NANGO_KEY_LEN, &key, &val);
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


static int
nango_delivery_due_row(nango_delivering_t *r,
    const unsigned char lane[NANGO_KEY_LEN], uint64_t sequence)
{
    int               rc, found;
    MDB_val           key, val;
    nango_row_t       row;
    nango_record_t    rec;
    nango_settled_t  *settled;
    unsigned char     buf[NANGO_SEQUENCE_LEN], other[NANGO_KEY_LEN];

    rc = nango_row_get(r->state, r->store, r->subscriber->key, sequence, lane,
                       &row, &found);
    if (rc != 0) {
        return rc;
    }

    nango_put_be64(buf, sequence);
    key = nango_val(buf, NANGO_SEQUENCE_LEN);

    rc = mdb_cursor_get(r->events, &key, &val, MDB_SET);

    if (rc != 0 && rc != MDB_NOTFOUND) {
        return rc;
    }

    if (rc == 0
        && nango_record_decode(&rec, nango_str(val.mv_data, val.mv_size)) == 0
        && nango_str_eq(rec.environment, r->subscriber->environment))
    {
        /* for the connection's key, which the lane is not for all */

        rc = nango_delivering_lane(r, sequence, &rec, other);

        return (rc == 0)
               ? nango_delivering_add(r, sequence,
                                      nango_str(val.mv_data, val.mv_size),
                                      &rec, lane, row.attempts, 1)
               : rc;
    }

    rc = nango_delivering_settle(r, sequence, lane, NANGO_SETTLED_DEAD,
                                 &settled);
    if (rc == 0) {
        settled->row = 1;
        settled->attempts = row.attempts;
        settled->status = row.status;
    }

    return rc;
}


nango_rc_e
nango_delivery_expired(nango_store_t *store,
    const nango_subscriber_t *subscriber, uint64_t now_ms, size_t max,
    int (*skip)(void *data, const unsigned char lane[NANGO_KEY_LEN]),
    void *data, nango_settled_t **settled, size_t *nsettled,
    size_t *settled_size, nango_error_t *err)
{
    nango_delivery_t    *none;
    nango_delivering_t   r;

    memset(&r, 0, offsetof(nango_delivering_t, connection));

    r.store = store;
    r.subscriber = subscriber;
    r.settled = settled;
    r.nsettled = nsettled;
    r.size = settled_size;
    r.now_ms = now_ms;
    r.max_lanes = max;
    r.skip = skip;
    r.data = data;

    none = NULL;

    return nango_delivering(&r, nango_delivery_expired_work, &none, err);
}


static nango_rc_e
nango_delivery_expired_work(void *data, nango_error_t *err)
{
    nango_delivering_t *r = data;

    return nango_delivering_walk(r, r->store->rows,
                                 nango_delivery_expired_rows, err);
}


/* Oldest first; what is not there any more dies as soon as it is due. */

static int
nango_delivery_expired_rows(nango_delivering_t *r, MDB_cursor *cursor)
{
    int             rc, young;
    size_t          n;
    MDB_val         key, val;
    unsigned char   buf[NANGO_ROWS_KEY_LEN];

    nango_rows_key(buf, r->subscriber->key, NANGO_ROW_WAITING, 0);

    rc = nango_rows_seek(cursor, buf, NANGO_ROWS_KEY_LEN, NANGO_KEY_LEN + 1,
                         &key, &val);

    for (n = 0; rc == 0 && n < r->max_lanes; n++) {
        young = 0;

        rc = nango_delivery_expired_row(r,
                               nango_get_be64((unsigned char *) key.mv_data
                                              + NANGO_KEY_LEN + 1), &young);
        if (rc != 0 || young) {
            return rc;
        }

        rc = nango_rows_step(cursor, buf, NANGO_ROWS_KEY_LEN,
                             NANGO_KEY_LEN + 1, &key, &val);
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


static int
nango_delivery_expired_row(nango_delivering_t *r, uint64_t sequence,
    int *young)
{
    int               rc, found;
    MDB_val           key, val;
    uint64_t          age;
    nango_row_t       row;
    nango_record_t    rec;
    nango_settled_t  *settled;
    unsigned char     buf[NANGO_SEQUENCE_LEN], lane[NANGO_KEY_LEN];

    age = r->subscriber->max_age_ms;

    nango_put_be64(buf, sequence);
    key = nango_val(buf, NANGO_SEQUENCE_LEN);

    rc = mdb_cursor_get(r->events, &key, &val, MDB_SET);

    if (rc != 0) {
        return (rc == MDB_NOTFOUND) ? 0 : rc;
    }

    if (nango_record_decode(&rec, nango_str(val.mv_data, val.mv_size)) != 0) {
        return 0;
    }

    if (r->now_ms < rec.received_at || r->now_ms - rec.received_at <= age) {
        *young = 1;
        return 0;
    }

    memset(lane, 0, NANGO_KEY_LEN);

    rc = nango_row_get(r->state, r->store, r->subscriber->key, sequence, lane,
                       &row, &found);

    if (rc != 0 || !found
        || (row.attempts == 0 && row.since != 0
            && (r->now_ms < row.since || r->now_ms - row.since <= age))
        || (r->skip != NULL && r->skip(r->data, row.lane)))
    {
        return rc;
    }

    rc = nango_delivering_settle(r, sequence, row.lane, NANGO_SETTLED_DEAD,
                                 &settled);
    if (rc == 0) {
        settled->row = 1;
        settled->attempts = row.attempts;
        settled->status = row.status;
    }

    return rc;
}


/* Events of one connection come one after the other, more often than not. */

static int
nango_delivering_lane(nango_delivering_t *r, uint64_t sequence,
    const nango_record_t *rec, unsigned char lane[NANGO_KEY_LEN])
{
    if (rec->integration.len == 0 || rec->connection_id.len == 0) {
        memset(lane, 0, NANGO_KEY_LEN - NANGO_SEQUENCE_LEN);
        nango_put_be64(lane + NANGO_KEY_LEN - NANGO_SEQUENCE_LEN, sequence);
        return 0;
    }

    if (!nango_str_eq(rec->connection_id, r->connection_id)
        || !nango_str_eq(rec->integration, r->integration))
    {
        if (nango_connection_key(r->key, rec->environment, rec->integration,
                                 rec->connection_id)
            != 0)
        {
            r->connection_id.len = 0;
            return ENOMEM;
        }

        r->connection_id = rec->connection_id;
        r->integration = rec->integration;
    }

    memcpy(lane, r->key, NANGO_KEY_LEN);

    return 0;
}


/* 0: the lane has rows; MDB_NOTFOUND. */

static int
nango_delivering_held(nango_delivering_t *r,
    const unsigned char lane[NANGO_KEY_LEN])
{
    MDB_val        key, val;
    unsigned char  buf[NANGO_LANES_KEY_LEN];

    if (!r->held) {
        return MDB_NOTFOUND;
    }

    nango_lanes_key(buf, r->subscriber->key, lane, 0);

    return nango_rows_seek(r->lanes, buf, NANGO_LANES_KEY_LEN,
                           2 * NANGO_KEY_LEN, &key, &val);
}


static int
nango_delivering_add(nango_delivering_t *r, uint64_t sequence,
    nango_str_t data, const nango_record_t *rec,
    const unsigned char lane[NANGO_KEY_LEN], uint32_t attempts, int row)
{
    int                  rc;
    size_t               i, size;
    unsigned char       *p;
    nango_delivery_t    *d;
    nango_connection_t  *c;

    c = &r->connection;
    c->ntags = 0;

    if (rec->integration.len != 0 && rec->connection_id.len != 0) {
        rc = nango_history_at(r->state, r->store, r->key, sequence, c);

        if (rc != 0 && rc != MDB_NOTFOUND) {
            return rc;
        }

        /* What the key stands for is in the record. */

        if (rc != 0
            || !nango_str_eq(c->environment, rec->environment)
            || !nango_str_eq(c->integration, rec->integration)
            || !nango_str_eq(c->connection_id, rec->connection_id))
        {
            c->ntags = 0;
        }
    }

    size = sizeof(nango_delivery_t) + data.len;

    for (i = 0; i < c->ntags; i++) {
        size += c->tags[i].name.len + c->tags[i].value.len;
    }

    d = malloc(size);
    if (d == NULL) {
        return ENOMEM;
    }

    /* Reading the record may end in a fault. */

    r->made = d;

    d->next = NULL;
    d->sequence = sequence;
    d->attempts = attempts;
    d->row = row;
    memcpy(d->lane, lane, NANGO_KEY_LEN);

    p = (unsigned char *) (d + 1);

    memcpy(p, data.data, data.len);
    (void) nango_record_decode(&d->record, nango_str(p, data.len));

    nango_delivering_owner(d, c, p + data.len);

    r->bytes += size;
    r->made = NULL;

    *r->tail = d;
    r->tail = &d->next;

    return 0;
}


static void
nango_delivering_owner(nango_delivery_t *d, const nango_connection_t *c,
    unsigned char *p)
{
    size_t              i;
    nango_tag_t        *tag;
    const nango_tag_t  *from;

    d->nowner = c->ntags;

    for (i = 0; i < c->ntags; i++) {
        tag = &d->owner[i];
        from = &c->tags[i];

        /* Empty ones of a damaged record have no data. */

        tag->name = nango_str(p, from->name.len);

        if (from->name.len) {
            memcpy(p, from->name.data, from->name.len);
            p += from->name.len;
        }

        tag->value = nango_str(p, from->value.len);

        if (from->value.len) {
            memcpy(p, from->value.data, from->value.len);
            p += from->value.len;
        }
    }
}


/* The new one is zero but for what is given. */

static int
nango_delivering_settle(nango_delivering_t *r, uint64_t sequence,
    const unsigned char *lane, nango_settled_e kind, nango_settled_t **settled)
{
    void             *p;
    size_t            size;
    nango_settled_t  *s;

    if (*r->nsettled == *r->size) {
        size = *r->size ? *r->size * 2 : 64;

        p = realloc(*r->settled, size * sizeof(nango_settled_t));
        if (p == NULL) {
            return ENOMEM;
        }

        *r->settled = p;
        *r->size = size;
    }

    s = &(*r->settled)[(*r->nsettled)++];

    memset(s, 0, sizeof(nango_settled_t));

    s->sequence = sequence;
    s->kind = kind;

    if (lane != NULL) {
        memcpy(s->lane, lane, NANGO_KEY_LEN);
    }

    *settled = s;

    return 0;
}


nango_rc_e
nango_delivery_register(nango_store_t *store,
    const nango_subscriber_t *subscribers, size_t n, uint64_t now_ms,
    nango_error_t *err)
{
    nango_rc_e            rc;
    nango_registering_t   r;

    memset(&r, 0, sizeof(nango_registering_t));

    r.store = store;
    r.subscribers = subscribers;
    r.n = n;
    r.now_ms = now_ms;

    rc = nango_store_within(store, -1, nango_register_look, &r, err);

    if (rc == NANGO_OK && r.unknown) {
        rc = nango_store_within(store, 1, nango_register_make, &r, err);
    }

    free(r.record);

    return rc;
}


static nango_rc_e
nango_register_look(void *data, nango_error_t *err)
{
    nango_registering_t *r = data;

    int       rc;
    size_t    i;
    MDB_val   key, val;

    rc = mdb_txn_begin(r->store->state, NULL, MDB_RDONLY, &r->txn);
    if (rc != 0) {
        return nango_store_error(r->store, err, rc, "mdb_txn_begin()",
                                 "state");
    }

    for (i = 0; i < r->n; i++) {
        key = nango_val(r->subscribers[i].key, NANGO_KEY_LEN);

        rc = mdb_get(r->txn, r->store->subscribers, &key, &val);
        if (rc != 0) {
            break;
        }
    }

    mdb_txn_abort(r->txn);

    if (rc == MDB_NOTFOUND) {
        r->unknown = 1;
        rc = 0;
    }

    return nango_store_error(r->store, err, rc, "mdb_get()", "state");
}


static nango_rc_e
nango_register_make(void *data, nango_error_t *err)
{
    nango_registering_t *r = data;

    int         rc;
    nango_rc_e  code;

    code = nango_store_begin(r->store, 1, &r->txn, err);
    if (code != NANGO_OK) {
        return code;
    }

    rc = mdb_txn_begin(r->store->log, NULL, MDB_RDONLY, &r->log);

    if (rc == 0) {
        rc = nango_register_all(r);
        mdb_txn_abort(r->log);
    }

    if (rc != 0) {
        mdb_txn_abort(r->txn);
        return nango_store_error(r->store, err, rc, "mdb_put()", "state");
    }

    return nango_store_commit(r->store, r->txn, err, "state");
}


static int
nango_register_all(nango_registering_t *r)
{
    int          rc;
    size_t       i;
    MDB_val      key, val;
    uint64_t     applied, first;
    MDB_cursor  *cursor;

    rc = nango_meta_u64(r->txn, r->store->state_meta, "applied", &applied);

    if (rc == 0) {
        rc = mdb_cursor_open(r->log, r->store->events, &cursor);
    }

    if (rc != 0) {
        return rc;
    }

    first = UINT64_MAX;

    rc = mdb_cursor_get(cursor, &key, &val, MDB_FIRST);

    if (rc == 0 && key.mv_size == NANGO_SEQUENCE_LEN) {
        first = nango_get_be64(key.mv_data);
    }

    mdb_cursor_close(cursor);

    if (rc == MDB_NOTFOUND) {
        rc = 0;
    }

    for (i = 0; rc == 0 && i < r->n; i++) {
        key = nango_val(r->subscribers[i].key, NANGO_KEY_LEN);

        rc = mdb_get(r->txn, r->store->subscribers, &key, &val);

        if (rc == MDB_NOTFOUND) {
            rc = nango_register_one(r, &r->subscribers[i], applied, first);
        }
    }

    return rc;
}


static int
nango_register_one(nango_registering_t *r,
    const nango_subscriber_t *subscriber, uint64_t applied, uint64_t first)
{
    int                  rc;
    size_t               size;
    MDB_val              key, val;
    uint64_t             pruned, sequence;
    nango_subscribed_t   s;
    unsigned char        environment[NANGO_KEY_LEN];

    memset(&s, 0, sizeof(nango_subscribed_t));

    s.created_at = r->now_ms;
    s.environment = subscriber->environment;
    s.name = subscriber->name;
    s.cursor = applied;

    if (nango_environment_key(environment, s.environment) != 0) {
        return ENOMEM;
    }

    rc = nango_stored_get(r->txn, r->store, environment, &s.base);

    if (rc == 0) {
        rc = nango_pruned_get(r->log, r->store, environment, &pruned,
                              &sequence);
    }

    if (rc != 0) {
        return rc;
    }

    /*
     * Its first event is the first that the log has, or the next one, which
     * is the same to a state that was lost and knows of nothing yet.
     */

    if (subscriber->from_start && first <= applied) {
        s.cursor = first - 1;
        s.base = pruned;

    } else if (s.base < pruned) {
        s.base = pruned;
    }

    size = nango_subscribed_size(&s);

    if (size == 0) {
        return MDB_BAD_VALSIZE;
    }

    free(r->record);

    r->record = malloc(size);
    if (r->record == NULL) {
        return ENOMEM;
    }

    nango_subscribed_encode(&s, r->record);

    key = nango_val(subscriber->key, NANGO_KEY_LEN);
    val = nango_val(r->record, size);

    return mdb_put(r->txn, r->store->subscribers, &key, &val, 0);
}
