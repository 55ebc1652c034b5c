/*
 * Copyright (C) nginx-nango authors
 *
 * What people do to subscribers: each act one write transaction of the state,
 * beside a leader that runs.  The leader finds rows that are gone, or back,
 * when it settles them or looks for what is due.
 *
 * On a thread of their own: after a fault that thread ends, and with it the
 * lock of the state's writer that it holds.
 */


#include "nango_rows.h"

#include <errno.h>
#include <stdlib.h>


typedef struct nango_hand_s  nango_hand_t;

struct nango_hand_s {
    nango_store_t        *store;
    const unsigned char  *key;
    int                 (*act)(nango_hand_t *h);
    uint64_t              sequence;
    size_t                max;
    uint64_t              now_ms;

    MDB_txn              *txn;
    nango_subscribed_t    s;
    unsigned char        *record;       /* see nango_subscribed_get() */
    int                   known;        /* it could be read */

    uint64_t              n;
    int                   more;
    const char           *refused;

    nango_rc_e            rc;
    nango_error_t         err;
};


static nango_rc_e nango_hand_apart(nango_hand_t *h, uint64_t *n, int *more,
    nango_error_t *err);
static void *nango_hand_thread(void *data);
static nango_rc_e nango_hand_work(void *data, nango_error_t *err);
static int nango_hand_redeliver(nango_hand_t *h);
static int nango_hand_redeliver_one(nango_hand_t *h, uint64_t sequence);
static int nango_hand_resume(nango_hand_t *h);
static int nango_hand_resume_lane(nango_hand_t *h,
    const unsigned char lane[NANGO_KEY_LEN], uint64_t time);
static int nango_hand_forget(nango_hand_t *h);
static int nango_hand_forget_row(nango_hand_t *h, nango_row_state_e state,
    uint64_t sequence);
static int nango_hand_clear(nango_hand_t *h, MDB_dbi dbi, size_t len);
static int nango_hand_first(nango_hand_t *h, MDB_dbi dbi, unsigned char *buf,
    size_t len, size_t n);


nango_rc_e
nango_delivery_redeliver(nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t sequence, size_t max,
    uint64_t now_ms, uint64_t *n, int *more, nango_error_t *err)
{
    nango_hand_t  h;

    memset(&h, 0, sizeof(nango_hand_t));

    h.store = store;
    h.key = key;
    h.act = nango_hand_redeliver;
    h.sequence = sequence;
    h.max = max;
    h.now_ms = now_ms;

    return nango_hand_apart(&h, n, more, err);
}


nango_rc_e
nango_delivery_resume(nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t now_ms,
    nango_error_t *err)
{
    int           more;
    uint64_t      n;
    nango_hand_t  h;

    memset(&h, 0, sizeof(nango_hand_t));

    h.store = store;
    h.key = key;
    h.act = nango_hand_resume;
    h.now_ms = now_ms;

    return nango_hand_apart(&h, &n, &more, err);
}


nango_rc_e
nango_delivery_forget(nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], size_t max, uint64_t *n,
    int *more, nango_error_t *err)
{
    nango_hand_t  h;

    memset(&h, 0, sizeof(nango_hand_t));

    h.store = store;
    h.key = key;
    h.act = nango_hand_forget;
    h.max = max;

    return nango_hand_apart(&h, n, more, err);
}


static nango_rc_e
nango_hand_apart(nango_hand_t *h, uint64_t *n, int *more, nango_error_t *err)
{
    int        rc;
    pthread_t  thread;

    *n = 0;
    *more = 0;

    rc = pthread_create(&thread, NULL, nango_hand_thread, h);

    if (rc == 0) {
        (void) pthread_join(thread, NULL);

    } else {
        h->rc = nango_store_error(h->store, &h->err, rc, "pthread_create()",
                                  NULL);
    }

    free(h->record);

    if (h->rc == NANGO_OK) {
        *n = h->n;
        *more = h->more;

        return NANGO_OK;
    }

    /* The thread that would have to end has ended. */

    if (h->rc == NANGO_EWRECKED) {
        h->rc = NANGO_EBROKEN;
        h->err.code = NANGO_EBROKEN;
    }

    if (err != NULL) {
        *err = h->err;
    }

    return h->rc;
}


static void *
nango_hand_thread(void *data)
{
    nango_hand_t *h = data;

    h->rc = nango_store_within(h->store, 1, nango_hand_work, h, &h->err);

    return NULL;
}


static nango_rc_e
nango_hand_work(void *data, nango_error_t *err)
{
    nango_hand_t *h = data;

    int         rc;
    MDB_val     key, val;
    nango_rc_e  code;

    code = nango_store_begin(h->store, 1, &h->txn, err);
    if (code != NANGO_OK) {
        return code;
    }

    key = nango_val(h->key, NANGO_KEY_LEN);

    rc = mdb_get(h->txn, h->store->subscribers, &key, &val);

    if (rc == 0) {
        rc = nango_subscribed_get(h->txn, h->store, h->key, &h->s,
                                  &h->record);
        h->known = (rc == 0);

        if (rc == 0 || (rc == MDB_NOTFOUND && h->act == nango_hand_forget)) {
            rc = h->act(h);

        } else if (rc == MDB_NOTFOUND) {
            h->refused = "cannot be read";
            rc = 0;
        }

    } else if (rc == MDB_NOTFOUND) {
        h->refused = "is not known";
        rc = 0;
    }

    if (rc != 0 || h->refused != NULL) {
        mdb_txn_abort(h->txn);

        return (rc != 0)
               ? nango_store_error(h->store, err, rc, "mdb_put()", "state")
               : nango_error_set(err, NANGO_EINVAL, "the subscriber %s",
                                 h->refused);
    }

    return nango_store_commit(h->store, h->txn, err, "state");
}


static int
nango_hand_redeliver(nango_hand_t *h)
{
    int            rc;
    MDB_val        key, val;
    unsigned char  buf[NANGO_ROWS_KEY_LEN];

    nango_rows_key(buf, h->key, NANGO_ROW_DEAD, h->sequence);

    if (h->sequence != 0) {
        key = nango_val(buf, NANGO_ROWS_KEY_LEN);
        rc = mdb_get(h->txn, h->store->rows, &key, &val);

        if (rc == 0) {
            rc = nango_hand_redeliver_one(h, h->sequence);
        }

    } else {

        for ( ;; ) {
            rc = nango_hand_first(h, h->store->rows, buf, NANGO_ROWS_KEY_LEN,
                                  NANGO_KEY_LEN + 1);
            if (rc != 0) {
                break;
            }

            if (h->n == h->max) {
                h->more = 1;
                break;
            }

            rc = nango_hand_redeliver_one(h,
                                 nango_get_be64(buf + NANGO_KEY_LEN + 1));
            if (rc != 0) {
                break;
            }
        }
    }

    if (rc != 0 && rc != MDB_NOTFOUND) {
        return rc;
    }

    if (h->n == 0 && !h->more) {
        h->refused = h->sequence ? "has no such dead letter"
                                 : "has no dead letters";
        return 0;
    }

    return nango_subscribed_put(h->txn, h->store, h->key, &h->s, h->record);
}


/* One that cannot be read any more becomes a lane of its own. */

static int
nango_hand_redeliver_one(nango_hand_t *h, uint64_t sequence)
{
    int            rc, found;
    nango_row_t    before, after;
    nango_lane_t   head;
    unsigned char  lane[NANGO_KEY_LEN];

    memset(lane, 0, NANGO_KEY_LEN);
    nango_put_be64(lane + NANGO_KEY_LEN - NANGO_SEQUENCE_LEN, sequence);

    rc = nango_row_get(h->txn, h->store, h->key, sequence, lane, &before,
                       &found);
    if (rc != 0) {
        return rc;
    }

    before.state = NANGO_ROW_DEAD;

    after = before;
    after.state = NANGO_ROW_WAITING;
    after.attempts = 0;
    after.next_at = 0;
    after.since = h->now_ms;

    rc = nango_lane_head(h->txn, h->store, h->key, after.lane, &head);

    if (rc == 0) {
        rc = nango_row_change(h->txn, h->store, h->key, sequence, &before,
                              &after);
    }

    if (rc == 0) {
        rc = nango_lane_moved(h->txn, h->store, h->key, after.lane, &head, 0);
    }

    if (rc != 0) {
        return rc;
    }

    nango_subscribed_less(&h->s, &h->s.dead);

    h->s.rows++;
    h->s.redelivered++;
    h->n++;

    return 0;
}


static int
nango_hand_resume(nango_hand_t *h)
{
    int            rc;
    uint64_t       time;
    unsigned char  buf[NANGO_DUE_KEY_LEN], lane[NANGO_KEY_LEN];

    if (!h->s.parked && h->s.rows == 0) {
        h->refused = "is not parked, and nothing of it waits";
        return 0;
    }

    memset(buf, 0, NANGO_DUE_KEY_LEN);
    memcpy(buf, h->key, NANGO_KEY_LEN);

    for ( ;; ) {

        /* Behind what is due already. */

        nango_put_be64(buf + NANGO_KEY_LEN, 1);
        memset(buf + NANGO_KEY_LEN + 8, 0, NANGO_KEY_LEN);

        rc = nango_hand_first(h, h->store->due, buf, NANGO_DUE_KEY_LEN,
                              NANGO_KEY_LEN);
        if (rc != 0) {
            break;
        }

        time = nango_get_be64(buf + NANGO_KEY_LEN);
        memcpy(lane, buf + NANGO_KEY_LEN + 8, NANGO_KEY_LEN);

        rc = nango_hand_resume_lane(h, lane, time);
        if (rc != 0) {
            break;
        }
    }

    if (rc != MDB_NOTFOUND) {
        return rc;
    }

    h->s.parked = 0;
    h->s.parked_at = 0;

    return nango_subscribed_put(h->txn, h->store, h->key, &h->s, h->record);
}


static int
nango_hand_resume_lane(nango_hand_t *h,
    const unsigned char lane[NANGO_KEY_LEN], uint64_t time)
{
    int            rc, found;
    MDB_val        key;
    nango_row_t    before, after;
    nango_lane_t   head;
    unsigned char  buf[NANGO_DUE_KEY_LEN];

    rc = nango_lane_head(h->txn, h->store, h->key, lane, &head);
    if (rc != 0) {
        return rc;
    }

    /* Also where the lane knows nothing of it. */

    nango_due_key(buf, h->key, time, lane);
    key = nango_val(buf, NANGO_DUE_KEY_LEN);

    rc = mdb_del(h->txn, h->store->due, &key, NULL);

    if (rc != 0 || !head.found) {
        return rc;
    }

    rc = nango_row_get(h->txn, h->store, h->key, head.sequence, lane, &before,
                       &found);
    if (rc != 0) {
        return rc;
    }

    after = before;
    after.next_at = 0;

    rc = nango_row_change(h->txn, h->store, h->key, head.sequence, &before,
                          &after);

    head.next_at = time;

    return (rc == 0) ? nango_lane_moved(h->txn, h->store, h->key, lane, &head,
                                        0)
                     : rc;
}


/*
 * What is forgotten has never been stored as far as the ledger goes, which
 * stays right until it is forgotten itself.
 */

static int
nango_hand_forget(nango_hand_t *h)
{
    int            rc;
    MDB_val        key;
    unsigned char  buf[NANGO_ROWS_KEY_LEN];

    for ( ;; ) {
        memset(buf, 0, NANGO_ROWS_KEY_LEN);
        memcpy(buf, h->key, NANGO_KEY_LEN);

        rc = nango_hand_first(h, h->store->rows, buf, NANGO_ROWS_KEY_LEN,
                              NANGO_KEY_LEN);
        if (rc != 0) {
            break;
        }

        if (h->n == h->max) {
            h->more = 1;
            break;
        }

        rc = nango_hand_forget_row(h, buf[NANGO_KEY_LEN],
                                 nango_get_be64(buf + NANGO_KEY_LEN + 1));
        if (rc != 0) {
            break;
        }
    }

    if (rc == 0 && h->known) {
        return nango_subscribed_put(h->txn, h->store, h->key, &h->s,
                                    h->record);
    }

    if (rc != MDB_NOTFOUND) {
        return rc;
    }

    rc = nango_hand_clear(h, h->store->lanes, NANGO_LANES_KEY_LEN);

    if (rc == 0) {
        rc = nango_hand_clear(h, h->store->due, NANGO_DUE_KEY_LEN);
    }

    if (rc == 0) {
        key = nango_val(h->key, NANGO_KEY_LEN);
        rc = mdb_del(h->txn, h->store->subscribers, &key, NULL);
    }

    return rc;
}


static int
nango_hand_forget_row(nango_hand_t *h, nango_row_state_e state,
    uint64_t sequence)
{
    int            rc, found;
    nango_row_t    row;
    nango_lane_t   head;
    unsigned char  lane[NANGO_KEY_LEN];

    memset(lane, 0, NANGO_KEY_LEN);

    rc = nango_row_get(h->txn, h->store, h->key, sequence, lane, &row, &found);
    if (rc != 0) {
        return rc;
    }

    row.state = state;

    rc = nango_lane_head(h->txn, h->store, h->key, row.lane, &head);

    if (rc == 0) {
        rc = nango_row_change(h->txn, h->store, h->key, sequence, &row, NULL);
    }

    if (rc == 0) {
        rc = nango_lane_moved(h->txn, h->store, h->key, row.lane, &head, 0);
    }

    if (rc != 0) {
        return rc;
    }

    h->n++;
    h->s.base++;

    nango_subscribed_less(&h->s, (state == NANGO_ROW_DEAD) ? &h->s.dead
                                                           : &h->s.rows);

    h->s.counted -= (h->s.counted != 0);

    return 0;
}


/* What no row of it stands for, with the rows of lanes. */

static int
nango_hand_clear(nango_hand_t *h, MDB_dbi dbi, size_t len)
{
    int            rc;
    MDB_val        key;
    unsigned char  buf[NANGO_LANES_KEY_LEN], owed[NANGO_OWED_KEY_LEN];

    for ( ;; ) {
        memset(buf, 0, NANGO_LANES_KEY_LEN);
        memcpy(buf, h->key, NANGO_KEY_LEN);

        rc = nango_hand_first(h, dbi, buf, len, NANGO_KEY_LEN);
        if (rc != 0) {
            break;
        }

        key = nango_val(buf, len);

        rc = mdb_del(h->txn, dbi, &key, NULL);

        if (rc == 0 && dbi == h->store->lanes) {
            nango_owed_key(owed, nango_get_be64(buf + 2 * NANGO_KEY_LEN),
                           h->key);

            key = nango_val(owed, NANGO_OWED_KEY_LEN);
            rc = mdb_del(h->txn, h->store->owed, &key, NULL);

            if (rc == MDB_NOTFOUND) {
                rc = 0;
            }
        }

        if (rc != 0) {
            break;
        }
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


/* The first key from buf on that begins like it, into buf. */

static int
nango_hand_first(nango_hand_t *h, MDB_dbi dbi, unsigned char *buf, size_t len,
    size_t n)
{
    int          rc;
    MDB_val      key, val;
    MDB_cursor  *cursor;

    rc = mdb_cursor_open(h->txn, dbi, &cursor);
    if (rc != 0) {
        return rc;
    }

    rc = nango_rows_seek(cursor, buf, len, n, &key, &val);

    if (rc == 0) {
        memcpy(buf, key.mv_data, len);
    }

    mdb_cursor_close(cursor);

    return rc;
}
