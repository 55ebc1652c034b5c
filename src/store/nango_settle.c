/*
 * Copyright (C) nginx-nango authors
 *
 * What deliveries came to, written into the state with the fold's batch.  A
 * delivered event whose lane was free costs nothing here: the cursor and the
 * counts say it all.  Only what is held up, or dead, has a row.
 *
 * A subscriber's cursor is what tells one leader from another: who has not
 * seen where it is has not seen what was settled since, and is refused.  What
 * it says of rows that are gone is passed over: somebody else has settled
 * them, or a hand has.
 */


#include "nango_rows.h"

#include <errno.h>


/* Pages that a change of a row may write: four tables, and due twice. */
#define NANGO_SETTLE_WRITES  5


typedef struct {
    MDB_txn              *txn;
    nango_store_t        *store;
    const unsigned char  *key;
    uint64_t              now_ms;
    nango_subscribed_t    s;
} nango_settle_t;


static int nango_settle_new(nango_settle_t *st, const nango_settled_t *settled,
    size_t *writes);
static int nango_settle_row(nango_settle_t *st,
    const nango_settled_t *settled);
static int nango_settle_lost(nango_settle_t *st, int *lost);


int
nango_settle(MDB_txn *txn, nango_store_t *store, nango_settlement_t *s,
    uint64_t applied, uint64_t now_ms, int *changed, size_t *writes,
    unsigned char **record)
{
    int              rc, lost;
    size_t           i;
    nango_settle_t   st;

    st.txn = txn;
    st.store = store;
    st.key = s->key;
    st.now_ms = now_ms;

    rc = nango_subscribed_get(txn, store, s->key, &st.s, record);

    if (rc == MDB_NOTFOUND
        || (rc == 0
            && (s->cursor_before != st.s.cursor
                || s->cursor < s->cursor_before || s->cursor > applied)))
    {
        s->stale = 1;
        return 0;
    }

    for (i = 0; rc == 0 && i < s->nsettled; i++) {

        if (s->settled[i].row) {
            *writes += NANGO_SETTLE_WRITES;
            rc = nango_settle_row(&st, &s->settled[i]);

        } else {
            rc = nango_settle_new(&st, &s->settled[i], writes);
        }
    }

    st.s.cursor = s->cursor;
    lost = 0;

    if (rc == 0 && s->cursor == applied) {
        rc = nango_settle_lost(&st, &lost);
    }

    if (rc != 0
        || (s->nsettled == 0 && s->cursor == s->cursor_before && !lost
            && (!s->park || st.s.parked)))
    {
        return rc;
    }

    if (s->park && !st.s.parked) {
        st.s.parked = 1;
        st.s.parked_at = now_ms;
    }

    *changed = 1;
    *writes += 1;

    return nango_subscribed_put(txn, store, s->key, &st.s, *record);
}


static int
nango_settle_new(nango_settle_t *st, const nango_settled_t *settled,
    size_t *writes)
{
    int                  rc, found;
    nango_row_t          row;
    nango_lane_t         head;
    nango_subscribed_t  *s;

    s = &st->s;

    switch (settled->kind) {

    case NANGO_SETTLED_DELIVERED:
        s->counted++;
        s->delivered++;
        return 0;

    case NANGO_SETTLED_SKIPPED:
        s->counted += settled->count;
        s->skipped += settled->count;
        return 0;

    default:
        break;
    }

    *writes += NANGO_SETTLE_WRITES;

    memset(&row, 0, sizeof(nango_row_t));

    row.state = (settled->kind == NANGO_SETTLED_DEAD) ? NANGO_ROW_DEAD
                                                      : NANGO_ROW_WAITING;
    row.status = settled->status;
    row.attempts = settled->attempts;
    memcpy(row.lane, settled->lane, NANGO_KEY_LEN);

    if (row.state == NANGO_ROW_DEAD) {
        row.since = st->now_ms;

        rc = nango_row_add(st->txn, st->store, st->key, settled->sequence,
                           &row, &found);

        if (rc == 0 && !found) {
            s->counted++;
            s->dead++;
        }

        return rc;
    }

    row.next_at = settled->next_at;
    row.since = row.attempts ? st->now_ms : 0;

    rc = nango_lane_head(st->txn, st->store, st->key, row.lane, &head);

    if (rc == 0) {
        rc = nango_row_add(st->txn, st->store, st->key, settled->sequence,
                           &row, &found);
    }

    if (rc != 0 || found) {
        return rc;
    }

    s->counted++;
    s->rows++;

    return nango_lane_moved(st->txn, st->store, st->key, row.lane, &head, 0);
}


static int
nango_settle_row(nango_settle_t *st, const nango_settled_t *settled)
{
    int                  rc, found;
    nango_row_t          before, after;
    nango_lane_t         head;
    nango_subscribed_t  *s;

    s = &st->s;

    rc = nango_row_get(st->txn, st->store, st->key, settled->sequence,
                       settled->lane, &before, &found);

    if (rc != 0 || !found || before.state != NANGO_ROW_WAITING) {
        return rc;
    }

    rc = nango_lane_head(st->txn, st->store, st->key, before.lane, &head);
    if (rc != 0) {
        return rc;
    }

    after = before;
    after.status = settled->status;
    after.attempts = settled->attempts;

    switch (settled->kind) {

    case NANGO_SETTLED_WAITING:
        after.next_at = settled->next_at;

        if (after.since == 0 && after.attempts != 0) {
            after.since = st->now_ms;
        }

        rc = nango_row_change(st->txn, st->store, st->key, settled->sequence,
                              &before, &after);
        break;

    case NANGO_SETTLED_DEAD:
        after.state = NANGO_ROW_DEAD;
        after.next_at = 0;
        after.since = st->now_ms;

        nango_subscribed_less(s, &s->rows);
        s->dead++;

        rc = nango_row_change(st->txn, st->store, st->key, settled->sequence,
                              &before, &after);
        break;

    default:
        nango_subscribed_less(s, &s->rows);

        if (settled->kind == NANGO_SETTLED_SKIPPED) {
            s->skipped++;

        } else {
            s->delivered++;
        }

        rc = nango_row_change(st->txn, st->store, st->key, settled->sequence,
                              &before, NULL);
        break;
    }

    if (rc != 0) {
        return rc;
    }

    return nango_lane_moved(st->txn, st->store, st->key, before.lane, &head,
                            settled->kind == NANGO_SETTLED_DELIVERED);
}


/* At the end of what is applied: what has not come by is not in the log. */

static int
nango_settle_lost(nango_settle_t *st, int *lost)
{
    int                  rc;
    uint64_t             stored, n;
    unsigned char        environment[NANGO_KEY_LEN];
    nango_subscribed_t  *s;

    s = &st->s;

    if (nango_environment_key(environment, s->environment) != 0) {
        return ENOMEM;
    }

    rc = nango_stored_get(st->txn, st->store, environment, &stored);

    if (rc != 0 || stored < s->base || stored - s->base <= s->counted) {
        return rc;
    }

    n = stored - s->base - s->counted;

    s->counted += n;
    s->lost += n;

    *lost = 1;

    return 0;
}
