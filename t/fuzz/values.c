/*
 * Copyright (C) nginx-nango authors
 *
 * Any bytes as what LMDB holds: keys and values of every table, those of the
 * meta tables too.  Whatever is there, no reader goes astray, errors have
 * their words, what is read lies within the limits, and the store opens again
 * or says why not.
 */


#include "fuzz_store.h"

#include "nango_rows.h"


#define IDS  4

static const unsigned char  names[IDS][NANGO_BODY_NAME_LEN + 1] = {
    "00000000000000000000000000000001", "00000000000000000000000000000002",
    "../../etc/passwd/../../etc/pass", "0000000000000000000000000000000G"
};


/* An error is one that has been told. */

static void
check_told(nango_rc_e rc)
{
    check(rc == NANGO_OK || (failure.code == rc && failure.text[0] != '\0'));
    failure.code = NANGO_OK;
    failure.text[0] = '\0';
}


static void
connection_key(unsigned char key[NANGO_KEY_LEN], unsigned n)
{
    static const char  *ids[] = { "a", "b", "c", "d" };

    check(nango_connection_key(key, S("prod"), S("github"),
                               nango_str(ids[n % IDS], 1))
          == 0);
}


/* Of two subscribers of prod. */

static nango_subscriber_t
subscriber(unsigned n)
{
    nango_subscriber_t  s;

    memset(&s, 0, sizeof(s));

    s.environment = S("prod");
    s.name = (n & 1) ? S("app") : S("other");
    s.types = (n & 1) ? NANGO_DELIVERY_TYPE(NANGO_TYPE_AUTH) : 0;
    s.from_start = 1;
    s.max_age_ms = HOUR;

    check(nango_subscriber_key(s.key, s.environment, s.name) == 0);

    return s;
}


/* A connection's, or an event's own. */

static void
lane_make(unsigned char lane[NANGO_KEY_LEN], unsigned n)
{
    memset(lane, 0, NANGO_KEY_LEN);

    if (n & 4) {
        lane[NANGO_KEY_LEN - 1] = (unsigned char) (n & 3);

    } else {
        connection_key(lane, n);
    }
}


/*
 * The key of a table: one of ours, or of bytes; its length is what LMDB takes.
 */

static size_t
key_take(nango_str_t *in, unsigned table, unsigned char buf[64])
{
    unsigned             b;
    nango_str_t          bytes;
    unsigned char        lane[NANGO_KEY_LEN];
    nango_subscriber_t   s;

    b = take_byte(in);
    memset(buf, 0, 64);
    s = subscriber(b);
    lane_make(lane, b >> 1);

    if (b >= 240) {
        bytes = take_bytes(in, 1 + b % 40);
        memcpy(buf, bytes.data, bytes.len);
        return bytes.len ? bytes.len : 1;
    }

    switch (table) {

    case 0: case 2: case 3:                 /* events, changes, tombstones */
        nango_put_be64(buf, (b & 0x80) ? ~(uint64_t) (b & 15) : b & 31);
        return NANGO_SEQUENCE_LEN;

    case 1:                                 /* connections */
        connection_key(buf, b);
        return NANGO_KEY_LEN;

    case 8: case 9:                         /* pruned, environments */
        check(nango_environment_key(buf, (b & 1) ? S("prod") : S("other"))
              == 0);
        return NANGO_KEY_LEN;

    case 10:                                /* subscribers */
        memcpy(buf, s.key, NANGO_KEY_LEN);
        return NANGO_KEY_LEN;

    case 11:                                /* owed */
        nango_owed_key(buf, b >> 1 & 15, s.key);
        return NANGO_OWED_KEY_LEN;

    case 12:                                /* rows */
        nango_rows_key(buf, s.key, 1 + (b >> 1 & 1), b >> 2 & 15);
        return NANGO_ROWS_KEY_LEN;

    case 13:                                /* lanes */
        nango_lanes_key(buf, s.key, lane, b >> 4 & 15);
        return NANGO_LANES_KEY_LEN;

    case 14:                                /* due */
        nango_due_key(buf, s.key, (b >> 4 & 3) * HOUR, lane);
        return NANGO_DUE_KEY_LEN;

    case 15:                                /* history */
        connection_key(buf, b);
        nango_put_be64(buf + NANGO_KEY_LEN, b >> 2 & 15);
        return NANGO_HISTORY_KEY_LEN;

    default:                                /* owners */
        check(nango_owner_key(buf, S("prod"), S("end_user_id"),
                              (b & 1) ? S("u") : S("v"))
              == 0);
        nango_put_be64(buf + NANGO_KEY_LEN, ~(uint64_t) (b >> 1 & 15));
        return NANGO_OWNERS_KEY_LEN;
    }
}


static void
put(MDB_txn *txn, MDB_dbi dbi, const void *key, size_t len, nango_str_t value)
{
    MDB_val  k, v;

    k = nango_val(key, len);
    v = nango_val(value.data, value.len);

    check(mdb_put(txn, dbi, &k, &v, 0) == 0);
}


/* What a valid value begins with, so that its rest is looked at as well. */

static nango_str_t
value_take(nango_str_t *in, unsigned table, unsigned char *buf)
{
    size_t                len, pos;
    unsigned              b;
    nango_str_t           bytes, text;
    nango_tag_t           tag;
    nango_row_t           row;
    nango_record_t        rec;
    nango_subscribed_t    s;
    nango_connection_t   *c;

    b = take_byte(in);
    bytes = take_bytes(in, take_byte(in));

    if (b & 1) {
        memcpy(buf, bytes.data, bytes.len);
        return nango_str(buf, bytes.len);
    }

    len = 0;

    switch (table) {

    case 0:
        memset(&rec, 0, sizeof(rec));
        rec.type = NANGO_TYPE_AUTH;
        rec.operation = (nango_op_e) (b >> 1 & 7);
        rec.success = (nango_success_e) (b >> 4 & 3);
        rec.received_at = T0;
        rec.environment = S("prod");
        rec.integration = S("github");
        rec.connection_id = nango_str(&"abcd"[b & 3], 1);
        rec.body_file = (b & 0x40) != 0;
        text = bytes;

        if (rec.body_file) {
            rec.body_len = bytes.len;
            text = nango_str(names[b >> 1 & 3], NANGO_BODY_NAME_LEN);
        }

        rec.body = text;
        len = nango_record_size(&rec);
        nango_record_encode(&rec, buf);
        break;

    case 8:
        nango_put_le(buf, b >> 1, 8);
        len = 8;
        break;

    case 9:
        buf[0] = 1;
        memset(buf + 1, 0, 15);
        buf[2] = 4;
        buf[8] = (unsigned char) (b >> 1);
        memcpy(buf + 16, "prod", 4);
        len = 20;
        break;

    case 10:
        memset(&s, 0, sizeof(s));
        s.cursor = b >> 1 & 7;
        s.base = b >> 4;
        s.rows = b >> 2 & 3;
        s.counted = b >> 2 & 3;
        s.dead = b >> 5;
        s.parked = b >> 6 & 1;
        s.environment = S("prod");
        s.name = S("app");
        len = nango_subscribed_size(&s);
        nango_subscribed_encode(&s, buf);
        break;

    case 11:
        memset(&row, 0, sizeof(row));
        row.state = 1 + (b >> 1 & 1);
        row.next_at = (b >> 2 & 3) * HOUR;
        row.attempts = b >> 4;
        lane_make(row.lane, b >> 2);
        nango_row_encode(&row, buf);
        len = NANGO_ROW_LEN;
        break;

    case 12: case 13: case 14:
        break;

    case 1: case 15:
        c = calloc(1, sizeof(nango_connection_t));
        check(c != NULL);
        c->status = (nango_status_e) (1 + (b >> 1) % 3);
        c->created_sequence = b >> 3 & 7;
        c->updated_sequence = b >> 3 & 7;
        c->environment = S("prod");
        c->integration = S("github");
        c->connection_id = nango_str(&"abcd"[b & 3], 1);
        tag.name = S("end_user_id");
        tag.value = (b & 0x40) ? S("u") : S("v");
        c->tags[0] = tag;
        c->ntags = 1;
        len = nango_connection_size(c);
        nango_connection_encode(c, buf);
        free(c);
        break;

    case 2:
    case 3:
        nango_put_le(buf, T0 - (b >> 1) * HOUR / 8, 8);
        connection_key(buf + 8, b >> 1);
        len = 8 + NANGO_KEY_LEN;

        if (table == 2) {
            check(nango_owner_key(buf + len, S("prod"), S("end_user_id"),
                                  S("u"))
                  == 0);
            len += NANGO_KEY_LEN;
        }

        break;

    default:
        connection_key(buf, b >> 1);
        len = NANGO_KEY_LEN;
    }

    /* some bytes of it, changed; perhaps longer or shorter */

    while (table != 0 && bytes.len >= 2) {
        pos = take_byte(&bytes) % (len + 1);
        buf[pos] = (unsigned char) take_byte(&bytes);

        if (pos == len) {
            len += (buf[pos] & 1) ? 1 : len ? (size_t) -1 : 0;
        }
    }

    if (b & 0x80 && len > 8) {
        len -= b >> 1 & 7;
    }

    return nango_str(buf, len);
}


static void
fill(nango_str_t *in)
{
    int             log, closed;
    size_t          len;
    MDB_txn        *txns[2];
    unsigned        b, table;
    MDB_dbi         tables[16];
    nango_str_t     value;
    unsigned char   key[64], buf[4096];

    static const char  *metas[] = {
        "applied", "counts", "forgotten", "floor", "schema", "store"
    };

    tables[0] = store->events;
    tables[1] = store->connections;
    tables[2] = store->changes;
    tables[3] = store->tombstones;
    tables[4] = store->owners;
    tables[8] = store->pruned;
    tables[9] = store->environments;
    tables[10] = store->subscribers;
    tables[11] = store->owed;
    tables[12] = store->rows;
    tables[13] = store->lanes;
    tables[14] = store->due;
    tables[15] = store->history;

    check(mdb_txn_begin(store->log, NULL, 0, &txns[0]) == 0);
    check(mdb_txn_begin(store->state, NULL, 0, &txns[1]) == 0);

    for (closed = 0; in->len && !closed; ) {
        b = take_byte(in);
        table = b % 8 + ((b & 0x40) ? 8 : 0);

        switch (table) {

        default:
            len = key_take(in, table, key);
            value = value_take(in, table, buf);

            put(txns[table % 8 != 0], tables[table], key, len, value);
            break;

        case 5: case 6:
            log = (b & 8) != 0;
            b = take_byte(in);
            value = take_bytes(in, b >> 4 ? b >> 4 : 8);
            memset(buf, 0, sizeof(buf));
            memcpy(buf, value.data, value.len);

            if (b >> 4 == 0) {
                value = nango_str(buf, 8);
            }

            put(log ? txns[0] : txns[1],
                log ? store->log_meta : store->state_meta,
                metas[b % 6], strlen(metas[b % 6]), value);
            break;

        case 7:
            closed = 1;
        }
    }

    check(mdb_txn_commit(txns[0]) == 0);
    check(mdb_txn_commit(txns[1]) == 0);
}


static void
check_connection(const nango_connection_t *c)
{
    size_t  i;

    check(c->status >= NANGO_STATUS_VALID && c->status <= NANGO_STATUS_DELETED);
    check(c->ntags <= NANGO_EVENT_TAGS_MAX);
    check(nango_connection_size(c) != 0);

    for (i = 0; i < c->ntags; i++) {
        check(nango_connection_tag(c, c->tags[i].name).len <= UINT16_MAX);
    }
}


static int
scan_one(void *data, uint64_t sequence, const nango_record_t *rec)
{
    check(rec == NULL || nango_record_size(rec) != 0);

    return --*(int *) data == 0;
}


static void
see_ledger(void *data, const nango_ledger_t *l)
{
    check(l->environment.len <= UINT16_MAX && l->name.len <= UINT16_MAX);
}


static void
see_stored(void *data, const nango_stored_t *stored)
{
    check(stored->name.len <= UINT16_MAX);
}


static void
see_owed(void *data, const nango_owed_t *owed)
{
    uint64_t *after = data;

    check(owed->sequence > *after);
    *after = owed->sequence;
}


static void
read_ledgers(void)
{
    int                  i, rc;
    uint64_t             after;
    nango_ledger_t       l;
    nango_subscriber_t   s;

    rc = nango_reader_ledgers(reader, see_ledger, NULL, &failure);
    check(rc == 0 || rc == -1);
    check_told(rc == -1 ? failure.code : NANGO_OK);

    rc = nango_reader_stored(reader, see_stored, NULL, &failure);
    check(rc == 0 || rc == -1);
    check_told(rc == -1 ? failure.code : NANGO_OK);

    for (i = 0; i < 4; i++) {
        s = subscriber((unsigned) i);
        after = 0;

        rc = nango_reader_owed(reader, s.key, i & 2, after, 3, see_owed,
                               &after, &failure);
        check(rc >= -1 && rc <= 1);
        check_told(rc == -1 ? failure.code : NANGO_OK);

        rc = nango_reader_ledger(reader, s.key, &l, &failure);
        check(rc >= -1 && rc <= 1);
        check_told(rc == -1 ? failure.code : NANGO_OK);
    }
}


/* Reads, settles in one way or another, acts, prunes: whatever is there. */

static void
deliver_all(unsigned what)
{
    int                     more;
    size_t                  n, i, nsettled, size;
    uint64_t                from, next_at;
    nango_rc_e              code;
    nango_pruned_t          pruned;
    nango_ledger_t          l;
    nango_folded_t          folded;
    nango_settled_t        *settled;
    nango_delivery_t       *list, *d;
    nango_subscriber_t      s;
    nango_settlement_t      settlement;
    nango_fold_options_t    options;
    nango_prune_options_t   prune;
    nango_delivery_read_t   how;

    s = subscriber(what);
    check_told(nango_delivery_register(store, &s, 1, T0, &failure));

    memset(&settlement, 0, sizeof(settlement));
    memset(&options, 0, sizeof(options));
    memset(&prune, 0, sizeof(prune));
    memset(&how, 0, sizeof(how));
    memset(&l, 0, sizeof(l));

    code = nango_reader_begin(reader, &failure);

    if (code == NANGO_OK) {
        (void) nango_reader_ledger(reader, s.key, &l, &failure);
        nango_reader_end(reader);
    }

    list = NULL;
    settled = NULL;
    nsettled = 0;
    size = 0;

    memcpy(settlement.key, s.key, NANGO_KEY_LEN);
    settlement.cursor_before = l.cursor;
    settlement.cursor = l.cursor;

    how.now_ms = T0;
    how.max_events = 100;
    how.max_bytes = 1000000;
    how.expire = (what & 2) != 0;

    check_told(nango_delivery_read(store, &s, &how, &settlement.cursor, &more,
                                   &list, &settled, &nsettled, &size,
                                   &failure));
    check_told(nango_delivery_due(store, &s, T0, 10, 1000000, NULL, NULL,
                                  &next_at, &list, &settled, &nsettled, &size,
                                  &failure));

    for (n = 0, d = list; d; d = d->next) {
        n++;
    }

    settled = realloc(settled, (n + nsettled + 1) * sizeof(nango_settled_t));
    check(settled != NULL);

    for (i = nsettled; list; i++) {
        d = list;
        list = d->next;

        check(d->nowner <= NANGO_EVENT_TAGS_MAX);
        check(nango_str_is(d->record.environment, "prod"));

        memset(&settled[i], 0, sizeof(nango_settled_t));
        settled[i].sequence = d->sequence;
        settled[i].row = d->row;
        settled[i].kind = (nango_settled_e) ((what + i) & 3);
        settled[i].count = (settled[i].kind == NANGO_SETTLED_SKIPPED);
        settled[i].next_at = (i & 4) * HOUR;
        memcpy(settled[i].lane, d->lane, NANGO_KEY_LEN);

        nango_delivery_free(d);
    }

    settlement.settled = settled;
    settlement.nsettled = i;

    options.now_ms = T0;
    options.retain_ms = HOUR;
    options.settlements = &settlement;
    options.nsettlements = 1;

    check_told(nango_fold(store, &options, &folded, &failure));

    free(settled);

    if (what & 4) {
        code = nango_delivery_redeliver(store, s.key, what & 7, 3, T0, &from,
                                        &more, &failure);
        check_told(code);
        check_told(nango_delivery_resume(store, s.key, T0, &failure));
    }

    if (what & 8) {
        code = nango_delivery_forget(store, s.key, 5, &from, &more, &failure);
        check_told(code);
    }

    prune.now_ms = T0 + HOUR;
    prune.max_events = 1 + (what & 7);
    prune.full_percent = what & 1;
    from = 0;

    for (i = 0; i < 4; i++) {
        check_told(nango_log_prune(store, &prune, &from, &pruned, &failure));
        check(pruned.pruned <= prune.max_events);
    }
}


static void
read_all(void)
{
    int                  i, rc, n;
    uint64_t             first, last;
    nango_rc_e           code;
    nango_tag_t          tags[2];
    nango_owned_t       *owned;
    nango_counts_t       counts;
    unsigned char        key[NANGO_KEY_LEN];
    nango_connection_t   c;

    n = 1000;
    rc = nango_log_scan(store, 0, scan_one, &n, &failure);
    check(rc >= -1 && rc <= 1);
    check_told(rc == -1 ? failure.code : NANGO_OK);

    check_told(nango_log_bounds(store, &first, &last, &failure));

    code = nango_reader_begin(reader, &failure);
    check_told(code);

    if (code != NANGO_OK) {
        return;
    }

    check_told(nango_reader_counts(reader, &counts, &failure));

    for (i = 0; i < IDS; i++) {
        connection_key(key, (unsigned) i);
        rc = nango_reader_connection(reader, key, &c, &failure);

        check(rc >= -1 && rc <= 1);
        check_told(rc == -1 ? failure.code : NANGO_OK);

        if (rc == 1) {
            check(memcmp(c.key, key, NANGO_KEY_LEN) == 0);
            check_connection(&c);
        }
    }

    tags[0].name = S("end_user_id");
    tags[0].value = S("u");
    tags[1].name = S("team");
    tags[1].value = S("x");

    for (i = 1; i <= 2; i++) {
        owned = nango_owned_open(reader, S("prod"), tags, (size_t) i,
                                 i == 2 ? 7 : 0, &failure);
        check(owned != NULL);

        last = UINT64_MAX;

        while ((rc = nango_owned_next(owned, &c, &failure)) == 1) {

            /* what is in the list is the owner's, and in order */

            check_connection(&c);
            check(nango_connection_indexed(&c));
            check(nango_str_is(c.environment, "prod"));
            check(nango_str_is(nango_connection_tag(&c, tags[0].name), "u"));
            check(i == 1
                  || nango_str_is(nango_connection_tag(&c, tags[1].name),
                                  "x"));
            check(c.created_sequence < last
                  || (last == UINT64_MAX
                      && c.created_sequence == UINT64_MAX));
            check(i == 1 || c.created_sequence < 7);

            last = c.created_sequence;
        }

        check(rc == 0 || rc == -1);
        check_told(rc == -1 ? failure.code : NANGO_OK);

        nango_owned_close(owned);

        for (n = 0; n < 4; n++) {
            rc = nango_reader_changed(reader, S("prod"), tags, (size_t) i,
                                      (uint64_t) n * 3, &failure);
            check(rc >= -1 && rc <= 2);
            check_told(rc == -1 ? failure.code : NANGO_OK);
        }
    }

    read_ledgers();

    nango_reader_end(reader);
}


/* A body of one byte and one that is an event. */

static void
bodies(void)
{
    int  i, fd;

    static const char  *texts[] = {
        "{", "{\"type\":\"auth\",\"tags\":{\"end_user_id\":\"u\"}}"
    };

    for (i = 0; i < 2; i++) {
        fd = openat(store->bodies, (const char *) names[i],
                    O_WRONLY|O_CREAT|O_CLOEXEC, 0600);

        if (fd == -1 && errno == EACCES) {
            continue;
        }

        check(fd != -1);
        check(write(fd, texts[i], strlen(texts[i]))
              == (ssize_t) strlen(texts[i]));
        close(fd);
    }
}


static void
write_one(void)
{
    nango_rc_e       rc;
    nango_write_t    job, *jobs[1];
    nango_writer_t  *writer;
    unsigned char    record[128];
    nango_record_t   rec;

    memset(&rec, 0, sizeof(rec));
    memset(&job, 0, sizeof(job));

    rec.type = NANGO_TYPE_AUTH;
    rec.operation = NANGO_OP_CREATION;
    rec.success = NANGO_SUCCESS_TRUE;
    rec.environment = S("prod");
    rec.integration = S("github");
    rec.connection_id = S("a");
    rec.received_at = T0;
    rec.body = S("{}");
    rec.body_len = 2;

    job.len = nango_record_size(&rec);
    check(job.len != 0 && job.len <= sizeof(record));
    nango_record_encode(&rec, record);

    job.record = record;
    job.received_at = T0;
    job.dedupe_ms = 60000;
    check(nango_environment_key(job.environment, rec.environment) == 0);

    writer = nango_writer_create(store, 120000);
    check(writer != NULL);

    jobs[0] = &job;
    rc = nango_log_commit(writer, jobs, 1, &failure);

    check_told(rc);
    check((rc == NANGO_OK) == (job.result == NANGO_WRITE_STORED
                               || job.result == NANGO_WRITE_DUPLICATE));
    check((rc == NANGO_OK) == (job.sequence != 0));

    nango_writer_free(writer);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int                    rc;
    unsigned               what, i;
    nango_rc_e             code;
    nango_str_t            in;
    nango_folded_t         folded;
    nango_store_options_t  store_options;
    nango_fold_options_t   options;

    store_empty();

    in = nango_str(data, size);
    what = take_byte(&in);

    fill(&in);
    bodies();

    read_all();

    memset(&options, 0, sizeof(options));
    options.now_ms = T0;
    options.retain_ms = HOUR;
    options.max_events = what & 3;

    for (i = 0; i < 4; i++) {
        code = nango_fold(store, &options, &folded, &failure);
        check_told(code);

        if (code != NANGO_OK || !folded.more) {
            break;
        }
    }

    read_all();

    deliver_all(what >> 2);
    read_all();
    deliver_all(what >> 1);

    if (what & 4) {
        write_one();
        check_told(nango_fold(store, &options, &folded, &failure));
        read_all();
    }

    if (what & 8) {
        rc = nango_body_sweep(store, UINT64_MAX / 2, 10, &failure);
        check(rc >= -1 && rc <= 2);
        check_told(rc == -1 ? failure.code : NANGO_OK);
    }

    /* which takes the longest */

    if ((what & 0xf0) == 0x30) {
        store_close();

        memset(&store_options, 0, sizeof(store_options));
        store_options.path = directory;
        store_options.size = SIZE;

        code = nango_store_open(&store, &store_options, &failure);
        check_told(code);

        if (code == NANGO_OK) {
            reader = nango_reader_create(store);
            check(reader != NULL);
            read_all();

        } else {
            check(store == NULL);

            /* the next input begins anew */

            directory_remove(directory);
            check(mkdir(directory, 0700) == 0);
        }
    }

    return 0;
}
