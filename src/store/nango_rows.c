/*
 * Copyright (C) nginx-nango authors
 *
 * Records of subscribers and rows, and the changes that several of their
 * tables take part in.  What is due of a lane is looked up before something in
 * it changes and again after that, whatever the change was: a few steps more
 * than each kind of change would need, and one rule that none can break.
 */


#include "nango_rows.h"

#include <errno.h>
#include <stdlib.h>


#define NANGO_SUBSCRIBED_VERSION  1
#define NANGO_STORED_VERSION      1
#define NANGO_ROW_VERSION         1

#define NANGO_SUBSCRIBED_PARKED   0x01

/* Offsets of a subscriber's head, and its length. */
#define NANGO_SUBSCRIBED_LENGTHS  2
#define NANGO_SUBSCRIBED_NUMBERS  8
#define NANGO_SUBSCRIBED_N        11
#define NANGO_SUBSCRIBED_HEAD                                                 \
    (NANGO_SUBSCRIBED_NUMBERS + 8 * NANGO_SUBSCRIBED_N)

/* And of an environment's. */
#define NANGO_STORED_LEN          2
#define NANGO_STORED_N            8
#define NANGO_STORED_HEAD         16


static void nango_subscribed_head(const nango_subscribed_t *s,
    unsigned char *dst);
static int nango_rows_found(int rc, const unsigned char *buf, size_t len,
    size_t n, MDB_val *key);
static int nango_rows_put(MDB_txn *txn, MDB_dbi dbi, const unsigned char *buf,
    size_t len);
static int nango_rows_del(MDB_txn *txn, MDB_dbi dbi, const unsigned char *buf,
    size_t len);
static int nango_row_put(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t sequence,
    const nango_row_t *row, unsigned flags);


/* In their order on disk. */

static const size_t  nango_subscribed_numbers[NANGO_SUBSCRIBED_N] = {
    offsetof(nango_subscribed_t, created_at),
    offsetof(nango_subscribed_t, cursor),
    offsetof(nango_subscribed_t, base),
    offsetof(nango_subscribed_t, counted),
    offsetof(nango_subscribed_t, delivered),
    offsetof(nango_subscribed_t, skipped),
    offsetof(nango_subscribed_t, dead),
    offsetof(nango_subscribed_t, rows),
    offsetof(nango_subscribed_t, lost),
    offsetof(nango_subscribed_t, redelivered),
    offsetof(nango_subscribed_t, parked_at)
};


static inline uint64_t *
nango_subscribed_number(const nango_subscribed_t *s, int i)
{
    return (uint64_t *) ((char *) s + nango_subscribed_numbers[i]);
}


size_t
nango_subscribed_size(const nango_subscribed_t *s)
{
    if (s->environment.len > UINT16_MAX || s->name.len > UINT16_MAX) {
        return 0;
    }

    return NANGO_SUBSCRIBED_HEAD + s->environment.len + s->name.len;
}


void
nango_subscribed_encode(const nango_subscribed_t *s, unsigned char *dst)
{
    nango_subscribed_head(s, dst);

    dst += NANGO_SUBSCRIBED_HEAD;

    if (s->environment.len) {
        memcpy(dst, s->environment.data, s->environment.len);
    }

    if (s->name.len) {
        memcpy(dst + s->environment.len, s->name.data, s->name.len);
    }
}


static void
nango_subscribed_head(const nango_subscribed_t *s, unsigned char *dst)
{
    int  i;

    memset(dst, 0, NANGO_SUBSCRIBED_HEAD);

    dst[0] = NANGO_SUBSCRIBED_VERSION;
    dst[1] = s->parked ? NANGO_SUBSCRIBED_PARKED : 0;

    nango_put_le(dst + NANGO_SUBSCRIBED_LENGTHS, s->environment.len, 2);
    nango_put_le(dst + NANGO_SUBSCRIBED_LENGTHS + 2, s->name.len, 2);

    for (i = 0; i < NANGO_SUBSCRIBED_N; i++) {
        nango_put_le(dst + NANGO_SUBSCRIBED_NUMBERS + i * 8,
                     *nango_subscribed_number(s, i), 8);
    }
}


int
nango_subscribed_decode(nango_subscribed_t *s, nango_str_t data)
{
    int                   i;
    size_t                environment, name;
    const unsigned char  *p;

    memset(s, 0, sizeof(nango_subscribed_t));

    if (data.len == 0) {
        return -1;
    }

    p = data.data;

    if (p[0] != NANGO_SUBSCRIBED_VERSION) {
        return 1;
    }

    if (data.len < NANGO_SUBSCRIBED_HEAD) {
        return -1;
    }

    environment = nango_get_le(p + NANGO_SUBSCRIBED_LENGTHS, 2);
    name = nango_get_le(p + NANGO_SUBSCRIBED_LENGTHS + 2, 2);

    if (data.len != NANGO_SUBSCRIBED_HEAD + environment + name) {
        return -1;
    }

    s->parked = p[1] & NANGO_SUBSCRIBED_PARKED;

    for (i = 0; i < NANGO_SUBSCRIBED_N; i++) {
        *nango_subscribed_number(s, i) =
                     nango_get_le(p + NANGO_SUBSCRIBED_NUMBERS + i * 8, 8);
    }

    p += NANGO_SUBSCRIBED_HEAD;

    s->environment = nango_str(environment ? p : NULL, environment);
    s->name = nango_str(name ? p + environment : NULL, name);

    return 0;
}


int
nango_subscribed_get(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], nango_subscribed_t *s,
    unsigned char **record)
{
    int       rc;
    MDB_val   k, v;

    k = nango_val(key, NANGO_KEY_LEN);

    rc = mdb_get(txn, store->subscribers, &k, &v);
    if (rc != 0) {
        return rc;
    }

    if (nango_subscribed_decode(s, nango_str(v.mv_data, v.mv_size)) != 0) {
        return MDB_NOTFOUND;
    }

    *record = malloc(v.mv_size);
    if (*record == NULL) {
        return ENOMEM;
    }

    memcpy(*record, v.mv_data, v.mv_size);

    (void) nango_subscribed_decode(s, nango_str(*record, v.mv_size));

    return 0;
}


int
nango_subscribed_put(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], const nango_subscribed_t *s,
    unsigned char *record)
{
    MDB_val  k, v;

    /* The strings are in their places already. */

    nango_subscribed_head(s, record);

    k = nango_val(key, NANGO_KEY_LEN);
    v = nango_val(record, nango_subscribed_size(s));

    return mdb_put(txn, store->subscribers, &k, &v, 0);
}


void
nango_subscribed_less(nango_subscribed_t *s, uint64_t *n)
{
    if (*n != 0) {
        (*n)--;

    } else {
        s->counted++;
    }
}


int
nango_stored_decode(nango_str_t data, nango_str_t *name, uint64_t *stored)
{
    size_t                len;
    const unsigned char  *p;

    p = data.data;

    if (data.len < NANGO_STORED_HEAD || p[0] != NANGO_STORED_VERSION) {
        return -1;
    }

    len = nango_get_le(p + NANGO_STORED_LEN, 2);

    if (data.len != NANGO_STORED_HEAD + len) {
        return -1;
    }

    *name = nango_str(p + NANGO_STORED_HEAD, len);
    *stored = nango_get_le(p + NANGO_STORED_N, 8);

    return 0;
}


int
nango_stored_get(MDB_txn *state, nango_store_t *store,
    const unsigned char environment[NANGO_KEY_LEN], uint64_t *stored)
{
    int           rc;
    MDB_val       key, val;
    nango_str_t   name;

    *stored = 0;

    key = nango_val(environment, NANGO_KEY_LEN);

    rc = mdb_get(state, store->environments, &key, &val);

    if (rc == 0) {
        (void) nango_stored_decode(nango_str(val.mv_data, val.mv_size), &name,
                                   stored);
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


/*
 * One that the state does not know yet has had what was pruned: the state was
 * lost, and made again from what the log still has.
 */

int
nango_stored_add(MDB_txn *state, nango_store_t *store, MDB_txn *log,
    const unsigned char environment[NANGO_KEY_LEN], nango_str_t name,
    uint64_t n)
{
    int             rc;
    MDB_val         key, val;
    uint64_t        stored, pruned, last;
    unsigned char  *p;

    rc = nango_stored_get(state, store, environment, &stored);

    if (rc == 0) {
        rc = nango_pruned_get(log, store, environment, &pruned, &last);
    }

    if (rc != 0) {
        return rc;
    }

    if (stored < pruned) {
        stored = pruned;
    }

    key = nango_val(environment, NANGO_KEY_LEN);
    val = nango_val(NULL, NANGO_STORED_HEAD + name.len);

    rc = mdb_put(state, store->environments, &key, &val, MDB_RESERVE);
    if (rc != 0) {
        return rc;
    }

    p = val.mv_data;

    memset(p, 0, NANGO_STORED_HEAD);

    p[0] = NANGO_STORED_VERSION;
    nango_put_le(p + NANGO_STORED_LEN, name.len, 2);
    nango_put_le(p + NANGO_STORED_N, stored + n, 8);

    if (name.len) {
        memcpy(p + NANGO_STORED_HEAD, name.data, name.len);
    }

    return 0;
}


int
nango_pruned_get(MDB_txn *log, nango_store_t *store,
    const unsigned char environment[NANGO_KEY_LEN], uint64_t *pruned,
    uint64_t *last)
{
    int                   rc;
    MDB_val               key, val;
    const unsigned char  *p;

    *pruned = 0;
    *last = 0;

    key = nango_val(environment, NANGO_KEY_LEN);

    rc = mdb_get(log, store->pruned, &key, &val);

    if (rc == 0 && val.mv_size == NANGO_PRUNED_LEN) {
        p = val.mv_data;

        *pruned = nango_get_le(p, 8);
        *last = nango_get_le(p + 8, 8);
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


void
nango_owed_key(unsigned char buf[NANGO_OWED_KEY_LEN], uint64_t sequence,
    const unsigned char key[NANGO_KEY_LEN])
{
    nango_put_be64(buf, sequence);
    memcpy(buf + NANGO_SEQUENCE_LEN, key, NANGO_KEY_LEN);
}


void
nango_rows_key(unsigned char buf[NANGO_ROWS_KEY_LEN],
    const unsigned char key[NANGO_KEY_LEN], nango_row_state_e state,
    uint64_t sequence)
{
    memcpy(buf, key, NANGO_KEY_LEN);
    buf[NANGO_KEY_LEN] = (unsigned char) state;
    nango_put_be64(buf + NANGO_KEY_LEN + 1, sequence);
}


void
nango_lanes_key(unsigned char buf[NANGO_LANES_KEY_LEN],
    const unsigned char key[NANGO_KEY_LEN],
    const unsigned char lane[NANGO_KEY_LEN], uint64_t sequence)
{
    memcpy(buf, key, NANGO_KEY_LEN);
    memcpy(buf + NANGO_KEY_LEN, lane, NANGO_KEY_LEN);
    nango_put_be64(buf + 2 * NANGO_KEY_LEN, sequence);
}


void
nango_due_key(unsigned char buf[NANGO_DUE_KEY_LEN],
    const unsigned char key[NANGO_KEY_LEN], uint64_t time,
    const unsigned char lane[NANGO_KEY_LEN])
{
    memcpy(buf, key, NANGO_KEY_LEN);
    nango_put_be64(buf + NANGO_KEY_LEN, time);
    memcpy(buf + NANGO_KEY_LEN + 8, lane, NANGO_KEY_LEN);
}


int
nango_rows_seek(MDB_cursor *cursor, const unsigned char *buf, size_t len,
    size_t n, MDB_val *key, MDB_val *val)
{
    int  rc;

    *key = nango_val(buf, len);

    rc = mdb_cursor_get(cursor, key, val, MDB_SET_RANGE);

    return nango_rows_found(rc, buf, len, n, key);
}


int
nango_rows_step(MDB_cursor *cursor, const unsigned char *buf, size_t len,
    size_t n, MDB_val *key, MDB_val *val)
{
    int  rc;

    rc = mdb_cursor_get(cursor, key, val, MDB_NEXT);

    return nango_rows_found(rc, buf, len, n, key);
}


static int
nango_rows_found(int rc, const unsigned char *buf, size_t len, size_t n,
    MDB_val *key)
{
    if (rc == 0
        && (key->mv_size != len || memcmp(key->mv_data, buf, n) != 0))
    {
        return MDB_NOTFOUND;
    }

    return rc;
}


static int
nango_rows_put(MDB_txn *txn, MDB_dbi dbi, const unsigned char *buf, size_t len)
{
    MDB_val  key, val;

    key = nango_val(buf, len);
    val = nango_val(NULL, 0);

    return mdb_put(txn, dbi, &key, &val, 0);
}


static int
nango_rows_del(MDB_txn *txn, MDB_dbi dbi, const unsigned char *buf, size_t len)
{
    int      rc;
    MDB_val  key;

    key = nango_val(buf, len);

    rc = mdb_del(txn, dbi, &key, NULL);

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


int
nango_row_decode(nango_row_t *row, nango_str_t data)
{
    const unsigned char  *p;

    memset(row, 0, sizeof(nango_row_t));

    p = data.data;

    if (data.len != NANGO_ROW_LEN || p[0] != NANGO_ROW_VERSION
        || (p[1] != NANGO_ROW_WAITING && p[1] != NANGO_ROW_DEAD))
    {
        return -1;
    }

    row->state = p[1];
    row->status = (uint16_t) nango_get_le(p + 2, 2);
    row->attempts = (uint32_t) nango_get_le(p + 4, 4);
    row->next_at = nango_get_le(p + 8, 8);
    row->since = nango_get_le(p + 16, 8);
    memcpy(row->lane, p + 24, NANGO_KEY_LEN);

    return 0;
}


void
nango_row_encode(const nango_row_t *row, unsigned char dst[NANGO_ROW_LEN])
{
    dst[0] = NANGO_ROW_VERSION;
    dst[1] = (unsigned char) row->state;
    nango_put_le(dst + 2, row->status, 2);
    nango_put_le(dst + 4, row->attempts, 4);
    nango_put_le(dst + 8, row->next_at, 8);
    nango_put_le(dst + 16, row->since, 8);
    memcpy(dst + 24, row->lane, NANGO_KEY_LEN);
}


int
nango_row_get(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t sequence,
    const unsigned char lane[NANGO_KEY_LEN], nango_row_t *row, int *found)
{
    int            rc;
    MDB_val        k, v;
    unsigned char  buf[NANGO_OWED_KEY_LEN], lanes[NANGO_LANES_KEY_LEN];

    *found = 0;

    nango_owed_key(buf, sequence, key);
    k = nango_val(buf, NANGO_OWED_KEY_LEN);

    rc = mdb_get(txn, store->owed, &k, &v);

    if (rc == 0
        && nango_row_decode(row, nango_str(v.mv_data, v.mv_size)) == 0)
    {
        *found = 1;
        return 0;
    }

    if (rc != 0 && rc != MDB_NOTFOUND) {
        return rc;
    }

    memset(row, 0, sizeof(nango_row_t));
    row->state = NANGO_ROW_WAITING;
    memcpy(row->lane, lane, NANGO_KEY_LEN);

    nango_lanes_key(lanes, key, lane, sequence);
    k = nango_val(lanes, NANGO_LANES_KEY_LEN);

    rc = mdb_get(txn, store->lanes, &k, &v);

    if (rc == MDB_NOTFOUND) {
        return 0;
    }

    *found = (rc == 0);

    return rc;
}


int
nango_row_add(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t sequence,
    const nango_row_t *row, int *found)
{
    int            rc;
    unsigned char  buf[NANGO_LANES_KEY_LEN];

    rc = nango_row_put(txn, store, key, sequence, row, MDB_NOOVERWRITE);

    *found = (rc == MDB_KEYEXIST);

    if (*found) {
        return 0;
    }

    if (rc == 0) {
        nango_rows_key(buf, key, row->state, sequence);
        rc = nango_rows_put(txn, store->rows, buf, NANGO_ROWS_KEY_LEN);
    }

    if (rc == 0 && row->state == NANGO_ROW_WAITING) {
        nango_lanes_key(buf, key, row->lane, sequence);
        rc = nango_rows_put(txn, store->lanes, buf, NANGO_LANES_KEY_LEN);
    }

    return rc;
}


int
nango_row_change(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t sequence,
    const nango_row_t *before, const nango_row_t *after)
{
    int                rc;
    nango_row_state_e  state;
    unsigned char      buf[NANGO_LANES_KEY_LEN];

    state = after ? after->state : 0;

    if (after) {
        rc = nango_row_put(txn, store, key, sequence, after, 0);

    } else {
        nango_owed_key(buf, sequence, key);
        rc = nango_rows_del(txn, store->owed, buf, NANGO_OWED_KEY_LEN);
    }

    if (rc != 0 || state == before->state) {
        return rc;
    }

    nango_rows_key(buf, key, before->state, sequence);
    rc = nango_rows_del(txn, store->rows, buf, NANGO_ROWS_KEY_LEN);

    if (rc == 0 && after) {
        nango_rows_key(buf, key, state, sequence);
        rc = nango_rows_put(txn, store->rows, buf, NANGO_ROWS_KEY_LEN);
    }

    if (rc != 0) {
        return rc;
    }

    nango_lanes_key(buf, key, before->lane, sequence);

    return (state == NANGO_ROW_WAITING)
           ? nango_rows_put(txn, store->lanes, buf, NANGO_LANES_KEY_LEN)
           : nango_rows_del(txn, store->lanes, buf, NANGO_LANES_KEY_LEN);
}


static int
nango_row_put(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t sequence,
    const nango_row_t *row, unsigned flags)
{
    MDB_val        k, v;
    unsigned char  buf[NANGO_OWED_KEY_LEN], data[NANGO_ROW_LEN];

    nango_owed_key(buf, sequence, key);
    nango_row_encode(row, data);

    k = nango_val(buf, NANGO_OWED_KEY_LEN);
    v = nango_val(data, NANGO_ROW_LEN);

    return mdb_put(txn, store->owed, &k, &v, flags);
}


int
nango_lane_head(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN],
    const unsigned char lane[NANGO_KEY_LEN], nango_lane_t *head)
{
    int             rc;
    MDB_val         k, v;
    MDB_cursor     *cursor;
    nango_row_t     row;
    unsigned char   buf[NANGO_LANES_KEY_LEN];

    memset(head, 0, sizeof(nango_lane_t));

    rc = mdb_cursor_open(txn, store->lanes, &cursor);
    if (rc != 0) {
        return rc;
    }

    nango_lanes_key(buf, key, lane, 0);

    rc = nango_rows_seek(cursor, buf, NANGO_LANES_KEY_LEN, 2 * NANGO_KEY_LEN,
                         &k, &v);
    if (rc == 0) {
        head->found = 1;
        head->sequence = nango_get_be64((unsigned char *) k.mv_data
                                        + 2 * NANGO_KEY_LEN);
    }

    mdb_cursor_close(cursor);

    if (rc != 0) {
        return (rc == MDB_NOTFOUND) ? 0 : rc;
    }

    nango_owed_key(buf, head->sequence, key);
    k = nango_val(buf, NANGO_OWED_KEY_LEN);

    rc = mdb_get(txn, store->owed, &k, &v);

    if (rc == 0
        && nango_row_decode(&row, nango_str(v.mv_data, v.mv_size)) == 0)
    {
        head->next_at = row.next_at;
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


int
nango_lane_moved(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN],
    const unsigned char lane[NANGO_KEY_LEN], const nango_lane_t *before,
    int now)
{
    int            rc, found;
    nango_row_t    row, changed;
    nango_lane_t   after;
    unsigned char  buf[NANGO_DUE_KEY_LEN];

    rc = nango_lane_head(txn, store, key, lane, &after);
    if (rc != 0) {
        return rc;
    }

    if (now && after.found && after.next_at != 0
        && after.sequence != before->sequence)
    {
        rc = nango_row_get(txn, store, key, after.sequence, lane, &row,
                           &found);
        if (rc == 0) {
            changed = row;
            changed.next_at = 0;
            rc = nango_row_change(txn, store, key, after.sequence, &row,
                                  &changed);
        }

        if (rc != 0) {
            return rc;
        }

        after.next_at = 0;
    }

    if (before->found == after.found && before->next_at == after.next_at) {
        return 0;
    }

    if (before->found) {
        nango_due_key(buf, key, before->next_at, lane);

        rc = nango_rows_del(txn, store->due, buf, NANGO_DUE_KEY_LEN);
        if (rc != 0) {
            return rc;
        }
    }

    if (!after.found) {
        return 0;
    }

    nango_due_key(buf, key, after.next_at, lane);

    return nango_rows_put(txn, store->due, buf, NANGO_DUE_KEY_LEN);
}


int
nango_history_at(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t sequence,
    nango_connection_t *c)
{
    int             rc;
    MDB_val         k, v;
    MDB_cursor     *cursor;
    unsigned char   buf[NANGO_HISTORY_KEY_LEN];

    rc = mdb_cursor_open(txn, store->history, &cursor);
    if (rc != 0) {
        return rc;
    }

    memcpy(buf, key, NANGO_KEY_LEN);
    nango_put_be64(buf + NANGO_KEY_LEN, sequence + 1);

    rc = nango_rows_seek(cursor, buf, NANGO_HISTORY_KEY_LEN, NANGO_KEY_LEN,
                         &k, &v);

    mdb_cursor_close(cursor);

    if (rc == MDB_NOTFOUND) {
        k = nango_val(key, NANGO_KEY_LEN);
        rc = mdb_get(txn, store->connections, &k, &v);
    }

    if (rc != 0) {
        return rc;
    }

    if (nango_connection_decode(c, key, nango_str(v.mv_data, v.mv_size)) != 0
        || c->created_sequence > sequence)
    {
        return MDB_NOTFOUND;
    }

    return 0;
}
