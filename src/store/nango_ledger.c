/*
 * Copyright (C) nginx-nango authors
 *
 * What subscribers have come to, read in a reader's snapshot.  The numbers of
 * a ledger are of one transaction and so add up.  What is handed out are
 * copies, as of connections.
 */


#include "nango_rows.h"

#include <errno.h>


/* How far an environment's oldest event is looked for in the log. */
#define NANGO_LEDGER_LOOK  1024


typedef struct {
    nango_reader_t       *reader;
    void                 *data;
    int                   more;
    const unsigned char  *key;

    void                (*ledgers)(void *data, const nango_ledger_t *ledger);
    nango_ledger_t       *ledger;

    void                (*stored)(void *data, const nango_stored_t *stored);

    void                (*owed)(void *data, const nango_owed_t *owed);
    nango_row_state_e     state;
    uint64_t              after;
    size_t                max;
} nango_reading_t;


static nango_rc_e nango_ledgers_work(void *data, nango_error_t *err);
static nango_rc_e nango_ledger_work(void *data, nango_error_t *err);
static nango_rc_e nango_stored_work(void *data, nango_error_t *err);
static nango_rc_e nango_owed_work(void *data, nango_error_t *err);
static int nango_ledgers_all(nango_reading_t *r, MDB_cursor *cursor);
static int nango_stored_all(nango_reading_t *r, MDB_cursor *cursor);
static int nango_owed_all(nango_reading_t *r, MDB_cursor *cursor);
static int nango_ledger_fill(nango_reader_t *reader,
    const unsigned char key[NANGO_KEY_LEN], MDB_val val,
    nango_ledger_t *ledger, int *decoded);
static int nango_ledger_oldest(nango_reader_t *reader,
    nango_ledger_t *ledger);
static int nango_ledger_oldest_row(nango_reader_t *reader,
    const nango_ledger_t *ledger, uint64_t *oldest);
static int nango_ledger_oldest_beyond(nango_reader_t *reader,
    const nango_ledger_t *ledger, uint64_t *oldest);


int
nango_reader_ledgers(nango_reader_t *reader,
    void (*visit)(void *data, const nango_ledger_t *ledger), void *data,
    nango_error_t *err)
{
    nango_reading_t  r;

    memset(&r, 0, sizeof(nango_reading_t));

    r.reader = reader;
    r.ledgers = visit;
    r.data = data;

    return (nango_store_guarded(reader->store, -1, nango_ledgers_work, &r, err)
            == NANGO_OK) ? 0 : -1;
}


int
nango_reader_stored(nango_reader_t *reader,
    void (*visit)(void *data, const nango_stored_t *stored), void *data,
    nango_error_t *err)
{
    nango_reading_t  r;

    memset(&r, 0, sizeof(nango_reading_t));

    r.reader = reader;
    r.stored = visit;
    r.data = data;

    return (nango_store_guarded(reader->store, -1, nango_stored_work, &r, err)
            == NANGO_OK) ? 0 : -1;
}


int
nango_reader_ledger(nango_reader_t *reader,
    const unsigned char key[NANGO_KEY_LEN], nango_ledger_t *ledger,
    nango_error_t *err)
{
    nango_reading_t  r;

    memset(&r, 0, sizeof(nango_reading_t));

    r.reader = reader;
    r.key = key;
    r.ledger = ledger;

    return (nango_store_guarded(reader->store, -1, nango_ledger_work, &r, err)
            == NANGO_OK) ? r.more : -1;
}


int
nango_reader_owed(nango_reader_t *reader,
    const unsigned char key[NANGO_KEY_LEN], int dead, uint64_t after,
    size_t max, void (*visit)(void *data, const nango_owed_t *owed),
    void *data, nango_error_t *err)
{
    nango_reading_t  r;

    if (after == UINT64_MAX) {
        return 0;
    }

    memset(&r, 0, sizeof(nango_reading_t));

    r.reader = reader;
    r.key = key;
    r.state = dead ? NANGO_ROW_DEAD : NANGO_ROW_WAITING;
    r.after = after;
    r.max = max;
    r.owed = visit;
    r.data = data;

    return (nango_store_guarded(reader->store, -1, nango_owed_work, &r, err)
            == NANGO_OK) ? r.more : -1;
}


static nango_rc_e
nango_ledgers_work(void *data, nango_error_t *err)
{
    nango_reading_t *r = data;

    int              rc;
    MDB_cursor      *cursor;
    nango_reader_t  *reader;

    reader = r->reader;

    rc = mdb_cursor_open(reader->state, reader->store->subscribers, &cursor);

    if (rc == 0) {
        rc = nango_ledgers_all(r, cursor);
        mdb_cursor_close(cursor);
    }

    return nango_store_error(reader->store, err, rc, "mdb_cursor_get()",
                             "state");
}


static int
nango_ledgers_all(nango_reading_t *r, MDB_cursor *cursor)
{
    int              rc, decoded;
    MDB_val          key, val;
    unsigned char    k[NANGO_KEY_LEN];
    nango_ledger_t   ledger;

    rc = mdb_cursor_get(cursor, &key, &val, MDB_FIRST);

    while (rc == 0) {

        if (key.mv_size == NANGO_KEY_LEN) {
            memcpy(k, key.mv_data, NANGO_KEY_LEN);

            rc = nango_ledger_fill(r->reader, k, val, &ledger, &decoded);
            if (rc != 0) {
                return rc;
            }

            if (decoded == 0) {
                r->ledgers(r->data, &ledger);
            }
        }

        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


static nango_rc_e
nango_ledger_work(void *data, nango_error_t *err)
{
    nango_reading_t *r = data;

    int              rc, decoded;
    MDB_val          key, val;
    nango_reader_t  *reader;

    reader = r->reader;

    key = nango_val(r->key, NANGO_KEY_LEN);

    rc = mdb_get(reader->state, reader->store->subscribers, &key, &val);

    if (rc == MDB_NOTFOUND) {
        return NANGO_OK;
    }

    if (rc == 0) {
        rc = nango_ledger_fill(reader, r->key, val, r->ledger, &decoded);
    }

    if (rc == 0) {
        r->more = (decoded == 0);
    }

    return nango_store_error(reader->store, err, rc, "mdb_get()", "state");
}


static nango_rc_e
nango_stored_work(void *data, nango_error_t *err)
{
    nango_reading_t *r = data;

    int              rc;
    MDB_cursor      *cursor;
    nango_reader_t  *reader;

    reader = r->reader;

    rc = mdb_cursor_open(reader->state, reader->store->environments, &cursor);

    if (rc == 0) {
        rc = nango_stored_all(r, cursor);
        mdb_cursor_close(cursor);
    }

    return nango_store_error(reader->store, err, rc, "mdb_cursor_get()",
                             "state");
}


static int
nango_stored_all(nango_reading_t *r, MDB_cursor *cursor)
{
    int              rc;
    MDB_val          key, val;
    uint64_t         last;
    nango_reader_t  *reader;
    nango_stored_t   stored;

    reader = r->reader;

    rc = mdb_cursor_get(cursor, &key, &val, MDB_FIRST);

    while (rc == 0) {

        if (key.mv_size == NANGO_KEY_LEN) {
            memcpy(stored.key, key.mv_data, NANGO_KEY_LEN);

            rc = nango_reader_keep(reader, val);

            if (rc == 0) {
                rc = nango_pruned_get(reader->log, reader->store, stored.key,
                                      &stored.pruned, &last);
            }

            if (rc != 0) {
                return rc;
            }

            if (nango_stored_decode(nango_str(reader->record, val.mv_size),
                                    &stored.name, &stored.stored)
                == 0)
            {
                /* See nango_stored_add(). */

                if (stored.stored < stored.pruned) {
                    stored.stored = stored.pruned;
                }

                r->stored(r->data, &stored);
            }
        }

        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


static nango_rc_e
nango_owed_work(void *data, nango_error_t *err)
{
    nango_reading_t *r = data;

    int              rc;
    MDB_cursor      *cursor;
    nango_reader_t  *reader;

    reader = r->reader;

    rc = mdb_cursor_open(reader->state, reader->store->rows, &cursor);

    if (rc == 0) {
        rc = nango_owed_all(r, cursor);
        mdb_cursor_close(cursor);
    }

    return nango_store_error(reader->store, err, rc, "mdb_cursor_get()",
                             "state");
}


static int
nango_owed_all(nango_reading_t *r, MDB_cursor *cursor)
{
    int              rc;
    size_t           n;
    MDB_val          key, val;
    nango_row_t      row;
    nango_owed_t     owed;
    nango_reader_t  *reader;
    unsigned char    buf[NANGO_ROWS_KEY_LEN], k[NANGO_OWED_KEY_LEN];

    reader = r->reader;

    nango_rows_key(buf, r->key, r->state, r->after + 1);

    rc = nango_rows_seek(cursor, buf, NANGO_ROWS_KEY_LEN, NANGO_KEY_LEN + 1,
                         &key, &val);

    for (n = 0; rc == 0; n++) {

        if (n == r->max) {
            r->more = 1;
            return 0;
        }

        owed.sequence = nango_get_be64((unsigned char *) key.mv_data
                                       + NANGO_KEY_LEN + 1);

        nango_owed_key(k, owed.sequence, r->key);
        key = nango_val(k, NANGO_OWED_KEY_LEN);

        rc = mdb_get(reader->state, reader->store->owed, &key, &val);

        if (rc != 0 && rc != MDB_NOTFOUND) {
            return rc;
        }

        /* One that cannot be read is there all the same. */

        if (rc != 0
            || nango_row_decode(&row, nango_str(val.mv_data, val.mv_size))
               != 0)
        {
            memset(&row, 0, sizeof(nango_row_t));
        }

        owed.attempts = row.attempts;
        owed.status = row.status;
        owed.since = row.since;
        owed.next_at = row.next_at;

        r->owed(r->data, &owed);

        rc = nango_rows_step(cursor, buf, NANGO_ROWS_KEY_LEN,
                             NANGO_KEY_LEN + 1, &key, &val);
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


static int
nango_ledger_fill(nango_reader_t *reader,
    const unsigned char key[NANGO_KEY_LEN], MDB_val val,
    nango_ledger_t *ledger, int *decoded)
{
    int                  rc;
    uint64_t             stored;
    unsigned char        environment[NANGO_KEY_LEN];
    nango_subscribed_t   s;

    rc = nango_reader_keep(reader, val);
    if (rc != 0) {
        return rc;
    }

    *decoded = nango_subscribed_decode(&s, nango_str(reader->record,
                                                     val.mv_size));
    if (*decoded != 0) {
        return 0;
    }

    if (nango_environment_key(environment, s.environment) != 0) {
        return ENOMEM;
    }

    rc = nango_stored_get(reader->state, reader->store, environment, &stored);
    if (rc != 0) {
        return rc;
    }

    memset(ledger, 0, sizeof(nango_ledger_t));
    memcpy(ledger->key, key, NANGO_KEY_LEN);

    ledger->environment = s.environment;
    ledger->name = s.name;
    ledger->created_at = s.created_at;
    ledger->cursor = s.cursor;
    ledger->parked_at = s.parked ? s.parked_at : 0;

    /*
     * More than is stored is counted where an environment's row was lost, or
     * where records can be read that could not be when they were applied.
     */

    ledger->stored = (stored > s.base) ? stored - s.base : 0;

    if (ledger->stored < s.counted) {
        ledger->stored = s.counted;
    }

    ledger->delivered = s.delivered;
    ledger->skipped = s.skipped;
    ledger->dead = s.dead;
    ledger->waiting = s.rows + (ledger->stored - s.counted);
    ledger->lost = s.lost;
    ledger->rows = s.rows;
    ledger->redelivered = s.redelivered;

    return nango_ledger_oldest(reader, ledger);
}


static int
nango_ledger_oldest(nango_reader_t *reader, nango_ledger_t *ledger)
{
    int       rc;
    uint64_t  row, beyond;

    row = 0;
    beyond = 0;

    rc = ledger->rows ? nango_ledger_oldest_row(reader, ledger, &row) : 0;

    if (rc == 0 && ledger->waiting > ledger->rows) {
        rc = nango_ledger_oldest_beyond(reader, ledger, &beyond);
    }

    ledger->oldest_at = (row == 0 || (beyond != 0 && beyond < row)) ? beyond
                                                                    : row;

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


static int
nango_ledger_oldest_row(nango_reader_t *reader, const nango_ledger_t *ledger,
    uint64_t *oldest)
{
    int              rc;
    MDB_val          key, val;
    MDB_cursor      *cursor;
    nango_record_t   rec;
    unsigned char    buf[NANGO_ROWS_KEY_LEN];

    nango_rows_key(buf, ledger->key, NANGO_ROW_WAITING, 0);

    rc = mdb_cursor_open(reader->state, reader->store->rows, &cursor);
    if (rc != 0) {
        return rc;
    }

    rc = nango_rows_seek(cursor, buf, NANGO_ROWS_KEY_LEN, NANGO_KEY_LEN + 1,
                         &key, &val);
    if (rc == 0) {
        memcpy(buf, (unsigned char *) key.mv_data + NANGO_KEY_LEN + 1,
               NANGO_SEQUENCE_LEN);
    }

    mdb_cursor_close(cursor);

    if (rc != 0) {
        return (rc == MDB_NOTFOUND) ? 0 : rc;
    }

    key = nango_val(buf, NANGO_SEQUENCE_LEN);

    rc = mdb_get(reader->log, reader->store->events, &key, &val);

    if (rc == 0
        && nango_record_decode(&rec, nango_str(val.mv_data, val.mv_size)) == 0)
    {
        *oldest = rec.received_at;
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


/*
 * The first of its environment behind the cursor.  Behind many of others it is
 * not older than the last of those.
 */

static int
nango_ledger_oldest_beyond(nango_reader_t *reader,
    const nango_ledger_t *ledger, uint64_t *oldest)
{
    int              n, rc;
    MDB_val          key, val;
    nango_record_t   rec;
    unsigned char    buf[NANGO_SEQUENCE_LEN];

    nango_put_be64(buf, ledger->cursor + 1);
    key = nango_val(buf, NANGO_SEQUENCE_LEN);

    rc = mdb_cursor_get(reader->events, &key, &val, MDB_SET_RANGE);

    for (n = 0; rc == 0 && n < NANGO_LEDGER_LOOK; n++) {

        if (nango_record_decode(&rec, nango_str(val.mv_data, val.mv_size))
            == 0)
        {
            *oldest = rec.received_at;

            if (nango_str_eq(rec.environment, ledger->environment)) {
                return 0;
            }
        }

        rc = mdb_cursor_get(reader->events, &key, &val, MDB_NEXT);
    }

    if (rc == MDB_NOTFOUND) {
        *oldest = 0;
        return 0;
    }

    return rc;
}
