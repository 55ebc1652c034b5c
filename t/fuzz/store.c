/*
 * Copyright (C) nginx-nango authors
 *
 * The store beside a plain model of it.  Bytes are operations: events of a few
 * environments, integrations, connections and owners are committed, folded and
 * asked for; writes and commits fail; the store is closed, recovered, and loses
 * its log or its state in between.  The model keeps everything in arrays and
 * looks through all of them; what an event does is the table of
 * docs/internals.md, written again.
 */


#include "fuzz_store.h"

#include "nango_memo.h"


#define EVENTS       512
#define OPENED       2
#define CHAIN        64         /* NANGO_SEEN_CHAIN */
#define REMEMBER     UINT64_C(120000)

/* Less than half of how much older than its neighbours an event may be. */
#define JITTER       UINT64_C(30000)

#define SMALL        (UINT64_C(96) * 1024)

#define ENVIRONMENTS  2
#define INTEGRATIONS  3         /* the last one is none */
#define CONNECTIONS   5         /* the last one is none, the one before bad */
#define OWNERS        3         /* tags, each of which has 2 values */
#define KNOWN         (ENVIRONMENTS * INTEGRATIONS * CONNECTIONS)


typedef struct {
    uint64_t              sequence;
    int                   understood;   /* 0: no record, or no body file */
    nango_source_e        source;
    nango_type_e          type;
    nango_op_e            op;
    nango_success_e       success;
    uint64_t              at;
    unsigned              environment;
    unsigned              integration;
    unsigned              connection;
    unsigned              hmac;         /* 0: none */
    unsigned              provider;     /* 0: not said */
    unsigned              error;        /* 0: not said */
    unsigned              tags[OWNERS]; /* 0: not there */
    size_t                pad;
} event_t;

typedef struct {
    nango_status_e        status;
    uint64_t              created_sequence;
    uint64_t              updated_sequence;
    uint64_t              created_at;
    uint64_t              updated_at;
    uint64_t              status_since;
    uint64_t              checked_at;
    uint64_t              repeats;
    unsigned              hmac;
    unsigned              provider;
    unsigned              error;
    unsigned              tags[OWNERS];
} connection_t;

typedef struct {
    uint64_t              sequence;
    uint64_t              at;
    unsigned              environment;
    unsigned              tags[OWNERS];
    unsigned              old[OWNERS];
} change_t;

typedef struct {
    uint64_t              sequence;     /* 0: dropped */
    uint64_t              at;
    unsigned              which;
} tombstone_t;

typedef struct {
    uint64_t              clock;
    uint64_t              last;
    uint64_t              floor;
    event_t               events[EVENTS];
    size_t                n;

    uint64_t              applied;
    uint64_t              forgotten;
    connection_t          connections[KNOWN];
    change_t              changes[EVENTS];
    size_t                nchanges;
    size_t                change;       /* the first that is remembered */
    tombstone_t           tombstones[EVENTS];
    size_t                ntombstones;
    size_t                tombstone;
    nango_counts_t        counts;

    size_t                committed;    /* so many at most in all */
    unsigned              opened;       /* as well: it takes the longest */
} model_t;


static model_t          m;
static nango_writer_t  *writers[2];
static nango_memo_t    *memo;


static const char  *environments[] = { "prod", "dev" };
static const char  *integrations[] = { "github", "slack", "" };
static const char  *connections[] = { "conn-1", "conn-2", "c", "bad\x01", "" };
static const char  *providers[] = { "", "github", "Slack" };
static const char  *errors[] = { "", "refresh_failed", "revoked" };

static const char  *owner_names[] = { "end_user_id", "organization_id",
                                      "team" };
static const char  *owner_values[][3] = {
    { "", "user-1", "user-2" }, { "", "org-1", "user-1" }, { "", "x", "y" }
};


static nango_str_t
str(const char *s)
{
    return nango_str(s, strlen(s));
}


static unsigned
which_connection(unsigned environment, unsigned integration,
    unsigned connection)
{
    return (environment * INTEGRATIONS + integration) * CONNECTIONS
           + connection;
}


/* Some are alike where the writer's table looks. */

static unsigned
hash(unsigned hmac)
{
    return hmac & 3;
}


static void
hmac_make(unsigned char hmac[NANGO_HMAC_LEN], unsigned n)
{
    memset(hmac, 0, NANGO_HMAC_LEN);

    hmac[0] = (unsigned char) hash(n);

    if (n != 0) {
        hmac[NANGO_HMAC_LEN - 1] = (unsigned char) n;
    }
}


static event_t
event_take(nango_str_t *in)
{
    size_t    i;
    event_t   e;
    unsigned  b;

    memset(&e, 0, sizeof(e));

    e.understood = 1;

    b = take_byte(in);
    e.op = (nango_op_e) (b % 6);
    e.success = (nango_success_e) (b / 6 % 3);
    e.source = (b / 18 % 4 == 3) ? NANGO_SOURCE_REPAIR
                                 : (nango_source_e) (b / 18 % 3);

    b = take_byte(in);
    e.environment = b % ENVIRONMENTS;
    e.integration = b / 2 % INTEGRATIONS;
    e.connection = b / 6 % CONNECTIONS;
    e.type = (b / 30 % 4 == 3) ? (nango_type_e) (b % 5) : NANGO_TYPE_AUTH;

    b = take_byte(in);
    e.hmac = b % 16;
    e.provider = b / 16 % 3;
    e.error = b / 48 % 3;

    b = take_byte(in);

    for (i = 0; i < OWNERS; i++) {
        e.tags[i] = b % 3;
        b /= 3;
    }

    e.pad = (b >= 9) ? 5000 : b;

    e.at = m.clock - (take_byte(in) * JITTER / 256);

    return e;
}


/* The record of an event, with a body that says the same. */

static nango_write_t *
job_make(const event_t *e, uint64_t dedupe)
{
    char             body[8192];
    size_t           i, len, n;
    nango_write_t   *job;
    unsigned char   *record;
    nango_record_t   rec;

    memset(&rec, 0, sizeof(rec));

    rec.source = e->source;
    rec.type = e->type;
    rec.operation = e->op;
    rec.success = e->success;
    rec.received_at = e->at;
    rec.environment = str(environments[e->environment]);
    rec.type_name = str(nango_type_name(e->type));
    rec.integration = str(integrations[e->integration]);
    rec.connection_id = str(connections[e->connection]);
    rec.headers = S("Content-Type: application/json\r\n");

    hmac_make(rec.hmac, e->hmac);

    len = (size_t) sprintf(body, "{\"provider\":\"%s\",\"success\":%s,"
                           "\"error\":{\"type\":\"%s\","
                           "\"description\":\"%s\"},\"tags\":{",
                           providers[e->provider],
                           (e->success == NANGO_SUCCESS_TRUE) ? "true"
                                                              : "false",
                           errors[e->error], errors[e->error]);

    for (i = 0, n = 0; i < OWNERS; i++) {
        if (e->tags[i]) {
            len += (size_t) sprintf(body + len, "%s\"%s\":\"%s\"",
                                    n++ ? "," : "", owner_names[i],
                                    owner_values[i][e->tags[i]]);
        }
    }

    len += (size_t) sprintf(body + len, "},\"pad\":\"%*s\"}", (int) e->pad,
                            "");

    rec.body = nango_str(body, len);
    rec.body_len = len;

    len = nango_record_size(&rec);
    record = malloc(len);
    job = calloc(1, sizeof(nango_write_t));
    check(len != 0 && record != NULL && job != NULL);

    nango_record_encode(&rec, record);

    job->record = record;
    job->len = len;
    job->dedupe_ms = dedupe;
    job->received_at = rec.received_at;
    memcpy(job->hmac, rec.hmac, NANGO_HMAC_LEN);
    check(nango_environment_key(job->environment, rec.environment) == 0);

    return job;
}


/*
 * The first event that a job repeats, 0: none.  Among so many of one hash as
 * are looked at, that is: more of them come only where nobody compared.
 */

static uint64_t
model_duplicate(const event_t *e, uint64_t dedupe)
{
    size_t    i, n;
    uint64_t  apart, found;
    event_t  *other;

    if (dedupe == 0 || !nango_type_dedupes(e->type)) {
        return 0;
    }

    found = 0;

    for (i = m.n, n = 0; i-- > 0 && n < CHAIN; /* void */ ) {
        other = &m.events[i];

        if (!other->understood || !nango_type_dedupes(other->type)
            || hash(other->hmac) != hash(e->hmac))
        {
            continue;
        }

        n++;
        apart = (e->at > other->at) ? e->at - other->at : other->at - e->at;

        if (other->environment == e->environment && other->hmac == e->hmac
            && apart <= dedupe)
        {
            found = other->sequence;
        }
    }

    return found;
}


/* Whether the log has something from there on that may say other things. */

static int
model_overtaken(const event_t *e, uint64_t unseen)
{
    size_t    i;
    uint64_t  n;
    event_t  *other;

    if (unseen == 0) {
        return 0;
    }

    for (i = 0, n = 0; i < m.n; i++) {
        other = &m.events[i];

        if (other->sequence < unseen) {
            continue;
        }

        n++;

        if (!other->understood
            || (other->type == NANGO_TYPE_AUTH
                && which_connection(other->environment, other->integration,
                                    other->connection)
                   == which_connection(e->environment, e->integration,
                                       e->connection)))
        {
            return 1;
        }
    }

    return unseen + n != m.last + 1;
}


/* Perhaps the disk is full or broken in what comes next. */

static void
fault_take(nango_str_t *in, unsigned high)
{
    unsigned  b;

    static const int  codes[] = { ENOSPC, EIO, MDB_MAP_FULL, ENOMEM };

    fault = FAULT_NONE;
    fault_fired = 0;

    if (high < 13) {
        return;
    }

    b = take_byte(in);

    fault = (b & 1) ? FAULT_COMMIT : FAULT_WRITE;
    fault_rc = codes[b >> 1 & 3];
    fault_after = (fault == FAULT_WRITE) ? b >> 3 : 0;
}


static nango_rc_e
fault_code(void)
{
    return (fault_fired == EIO) ? NANGO_EIO
           : (fault_fired == ENOMEM) ? NANGO_ENOMEM : NANGO_EFULL;
}


static void
op_commit(nango_str_t *in, unsigned high)
{
    int              left_out, none, invalid;
    size_t           i, n;
    uint64_t         duplicate, last, unseen;
    unsigned         b, committing;
    event_t          events[8];
    uint64_t         dedupe[8];
    nango_rc_e       rc, expected;
    nango_write_t   *jobs[8];
    nango_writer_t **writer;

    b = take_byte(in);
    writer = &writers[b & 1];
    n = 1 + (b >> 1) % 8;

    if (m.committed + n > EVENTS) {
        return;
    }

    if (*writer == NULL) {
        *writer = nango_writer_create(store, REMEMBER);
        check(*writer != NULL);
    }

    for (i = 0; i < n; i++) {
        events[i] = event_take(in);
        b = take_byte(in);
        dedupe[i] = (b % 4 == 0) ? 0 : REMEMBER / (b % 4);
        jobs[i] = job_make(&events[i], dedupe[i]);

        /* as of some events ago, of now, or of what is still to come */

        if (b / 4 % 8 == 7) {
            unseen = m.last + 2;
            jobs[i]->unseen = (unseen > b / 32) ? unseen - b / 32 : 0;
        }

        /* one that is no record */

        if (b >= 250) {
            jobs[i]->len -= 1 + b % 4;
        }

        events[i].understood = (b < 250);
    }

    fault_take(in, high);
    committing = (fault == FAULT_COMMIT);

    rc = nango_log_commit(*writer, jobs, n, &failure);
    expected = NANGO_OK;
    fault = FAULT_NONE;

    /*
     * A write that fails for want of room leaves its job out; all others, and
     * a commit, fail them all.
     */

    none = fault_fired && (committing || fault_fired == EIO);
    left_out = fault_fired && !none;
    invalid = 0;
    last = m.last;

    for (i = 0; i < n; i++) {

        if (!events[i].understood) {
            check(jobs[i]->result == NANGO_WRITE_FAILED);
            check(jobs[i]->sequence == 0);
            expected = expected ? expected : NANGO_EINVAL;
            invalid = 1;
            continue;
        }

        duplicate = model_duplicate(&events[i], dedupe[i]);

        if (duplicate && (!none || jobs[i]->result != NANGO_WRITE_FAILED)) {
            check(jobs[i]->result == NANGO_WRITE_DUPLICATE);
            check(jobs[i]->sequence == duplicate);
            continue;
        }

        if (none) {

            /* It had no room, and then the others could not be written. */

            check(jobs[i]->result == NANGO_WRITE_FAILED
                  || (jobs[i]->result == NANGO_WRITE_FULL
                      && store->size == SMALL));
            check(jobs[i]->sequence == 0);
            expected = fault_code();
            continue;
        }

        if (model_overtaken(&events[i], jobs[i]->unseen)) {
            check(jobs[i]->result == NANGO_WRITE_OVERTAKEN);
            check(jobs[i]->sequence == 0);
            continue;
        }

        /* a log that has its size is full as well */

        if (left_out
            && jobs[i]->result == (fault_fired == ENOMEM ? NANGO_WRITE_FAILED
                                                         : NANGO_WRITE_FULL))
        {
            check(jobs[i]->sequence == 0);
            expected = expected ? expected : fault_code();
            left_out = 0;
            continue;
        }

        if (jobs[i]->result == NANGO_WRITE_FULL) {
            check(store->size == SMALL && jobs[i]->sequence == 0);
            expected = expected ? expected : NANGO_EFULL;
            continue;
        }

        check(jobs[i]->result == NANGO_WRITE_STORED);
        check(jobs[i]->sequence == ++m.last);

        events[i].sequence = m.last;
        m.events[m.n++] = events[i];
        m.committed++;
    }

    /* Of one that fails them all, or of the first that failed before it. */

    check(none ? (rc == fault_code() || (rc == NANGO_EINVAL && invalid))
                 && m.last == last
               : rc == expected);

    for (i = 0; i < n; i++) {
        free((void *) jobs[i]->record);
        free(jobs[i]);
    }
}


/* What no writer of ours writes: a later version, garbage, a hole. */

static void
op_foreign(nango_str_t *in)
{
    MDB_txn        *txn;
    MDB_val         key, val;
    unsigned        b;
    nango_str_t     bytes;
    unsigned char   sequence[NANGO_SEQUENCE_LEN];

    b = take_byte(in);
    bytes = take_bytes(in, b >> 4);

    if (m.committed == EVENTS
        || (bytes.len >= 72 && bytes.data[0] == NANGO_RECORD_VERSION))
    {
        return;
    }

    m.last += 1 + b % 4;
    m.events[m.n].sequence = m.last;
    m.events[m.n++].understood = 0;
    m.committed++;

    nango_put_be64(sequence, m.last);
    key = nango_val(sequence, sizeof(sequence));
    val = nango_val(bytes.data, bytes.len);

    check(mdb_txn_begin(store->log, NULL, 0, &txn) == 0);
    check(mdb_put(txn, store->events, &key, &val, MDB_APPEND) == 0);
    check(mdb_txn_commit(txn) == 0);
}


/* The table, and what goes with it. */

static nango_effect_e
model_transition(connection_t *c, const event_t *e)
{
    int             lifts, fails, blocked, changed;
    nango_status_e  before, after;

    before = c->status;
    fails = (e->success == NANGO_SUCCESS_FALSE);
    lifts = (e->source == NANGO_SOURCE_REPAIR);
    blocked = (before == NANGO_STATUS_DELETED && !lifts);

    if (e->integration == INTEGRATIONS - 1
        || e->connection >= CONNECTIONS - 2)
    {
        return NANGO_EFFECT_NONE;
    }

    switch (e->op) {

    case NANGO_OP_CREATION:

        if (e->success != NANGO_SUCCESS_TRUE) {
            return NANGO_EFFECT_NONE;
        }

        if (blocked
            || (e->hmac && e->hmac == c->hmac
                && (before == NANGO_STATUS_VALID
                    || before == NANGO_STATUS_INVALID)))
        {
            return NANGO_EFFECT_IGNORED;
        }

        after = NANGO_STATUS_VALID;
        break;

    case NANGO_OP_OVERRIDE:
    case NANGO_OP_REFRESH:

        if (e->success == NANGO_SUCCESS_NONE) {
            return NANGO_EFFECT_NONE;
        }

        if (before == NANGO_STATUS_NONE
            && (fails || e->op == NANGO_OP_REFRESH))
        {
            return NANGO_EFFECT_NONE;
        }

        if (before == NANGO_STATUS_DELETED && (fails || !lifts)) {
            return NANGO_EFFECT_IGNORED;
        }

        after = fails ? NANGO_STATUS_INVALID : NANGO_STATUS_VALID;
        break;

    case NANGO_OP_DELETION:

        if (fails) {
            return NANGO_EFFECT_NONE;
        }

        after = NANGO_STATUS_DELETED;
        break;

    default:
        return NANGO_EFFECT_NONE;
    }

    changed = (e->op == NANGO_OP_CREATION || before != after);

    if (before != NANGO_STATUS_DELETED || after != NANGO_STATUS_DELETED) {

        if (e->provider && e->provider != c->provider) {
            c->provider = e->provider;
            changed = 1;
        }

        if ((e->tags[0] || e->tags[1] || e->tags[2])
            && memcmp(e->tags, c->tags, sizeof(c->tags)) != 0)
        {
            memcpy(c->tags, e->tags, sizeof(c->tags));
            changed = 1;
        }

        if (after != NANGO_STATUS_INVALID) {
            c->error = 0;

        } else if (e->error && e->error != c->error) {
            c->error = e->error;
            changed = 1;
        }
    }

    if (e->op == NANGO_OP_CREATION) {
        c->hmac = e->hmac;
    }

    if (after == NANGO_STATUS_VALID && c->created_sequence == 0) {
        c->created_sequence = e->sequence;
        c->created_at = e->at;
    }

    c->checked_at = e->at;

    if (before != after) {
        c->status = after;
        c->status_since = e->at;
        c->repeats = 0;

    } else if (e->op != NANGO_OP_CREATION) {
        c->repeats++;
    }

    if (!changed) {
        return NANGO_EFFECT_REPEAT;
    }

    c->updated_sequence = e->sequence;
    c->updated_at = e->at;

    return NANGO_EFFECT_CHANGED;
}


static uint64_t *
model_count(nango_status_e status)
{
    return (status == NANGO_STATUS_VALID) ? &m.counts.valid
           : (status == NANGO_STATUS_INVALID) ? &m.counts.invalid
           : &m.counts.tombstones;
}


static void
model_apply(const event_t *e)
{
    size_t          i;
    unsigned        which;
    change_t       *change;
    connection_t   *c, before;
    nango_effect_e  effect;

    m.counts.events++;
    m.counts.gaps += e->sequence - m.applied - 1;
    m.applied = e->sequence;

    if (!e->understood) {
        m.counts.not_understood++;
        return;
    }

    if (e->type != NANGO_TYPE_AUTH || e->integration == INTEGRATIONS - 1
        || e->connection == CONNECTIONS - 1)
    {
        return;
    }

    which = which_connection(e->environment, e->integration, e->connection);

    c = &m.connections[which];
    before = *c;
    effect = model_transition(c, e);

    if (effect == NANGO_EFFECT_IGNORED
        || (effect == NANGO_EFFECT_NONE && before.status == NANGO_STATUS_NONE
            && e->success != NANGO_SUCCESS_NONE
            && (e->op == NANGO_OP_OVERRIDE || e->op == NANGO_OP_REFRESH)))
    {
        m.counts.ignored++;
    }

    if (effect != NANGO_EFFECT_CHANGED) {
        return;
    }

    m.counts.effective++;

    change = &m.changes[m.nchanges++];
    change->sequence = e->sequence;
    change->at = m.clock;
    change->environment = e->environment;
    memcpy(change->tags, c->tags, sizeof(c->tags));
    memcpy(change->old, before.tags, sizeof(c->tags));

    if (before.status == c->status) {
        return;
    }

    if (before.status != NANGO_STATUS_NONE) {
        (*model_count(before.status))--;
    }

    (*model_count(c->status))++;

    if (before.status == NANGO_STATUS_DELETED) {
        for (i = m.tombstone; i < m.ntombstones; i++) {
            if (m.tombstones[i].which == which) {
                m.tombstones[i].sequence = 0;
            }
        }
    }

    if (c->status == NANGO_STATUS_DELETED) {
        m.tombstones[m.ntombstones].sequence = e->sequence;
        m.tombstones[m.ntombstones].at = e->at;
        m.tombstones[m.ntombstones++].which = which;
    }
}


static void
model_forget(uint64_t retain)
{
    uint64_t      apart;
    tombstone_t  *t;

    while (m.change < m.nchanges) {
        apart = m.clock - m.changes[m.change].at;

        if (apart <= HOUR) {
            break;
        }

        m.forgotten = m.changes[m.change++].sequence;
    }

    while (m.tombstone < m.ntombstones) {
        t = &m.tombstones[m.tombstone];

        if (t->sequence != 0) {
            if (m.clock - t->at <= retain) {
                break;
            }

            memset(&m.connections[t->which], 0, sizeof(connection_t));
            m.counts.tombstones--;
        }

        m.tombstone++;
    }
}


static void
op_fold(nango_str_t *in, unsigned high)
{
    size_t                i, n;
    unsigned              b;
    uint64_t              gaps, wrong, from;
    nango_rc_e            rc;
    nango_folded_t        folded;
    nango_fold_options_t  options;

    b = take_byte(in);

    memset(&options, 0, sizeof(options));

    options.now_ms = m.clock;
    options.retain_ms = (b >> 4) * HOUR / 4;
    options.max_events = b & 15;

    fault_take(in, high);

    rc = nango_fold(store, &options, &folded, &failure);
    fault = FAULT_NONE;

    if (fault_fired) {
        check(rc == fault_code());
        check(folded.events == 0 && folded.applied == 0);
        return;
    }

    check_ok(rc);

    gaps = m.counts.gaps;
    wrong = m.counts.not_understood;
    from = 0;

    for (i = 0, n = 0; i < m.n; i++) {

        if (m.events[i].sequence <= m.applied) {
            continue;
        }

        if (options.max_events && n == options.max_events) {
            break;
        }

        if (n++ == 0) {
            from = m.events[i].sequence;
        }

        model_apply(&m.events[i]);
    }

    if (i == m.n && m.floor > m.applied) {
        from = m.floor + 1;

        m.counts.gaps += m.floor - m.applied;
        m.applied = m.floor;
    }

    check(folded.from == from);
    check(folded.events == n);
    check(folded.applied == m.applied);
    check(folded.more == (i < m.n));
    check(folded.gap == m.counts.gaps - gaps);
    check(folded.not_understood == m.counts.not_understood - wrong);

    model_forget(options.retain_ms);
}


static void
check_tags(const nango_tag_t *tags, size_t n, const unsigned *expected)
{
    size_t  i, j;

    for (i = 0, j = 0; i < OWNERS; i++) {
        if (expected[i]) {
            check(j < n);
            check(nango_str_is(tags[j].name, owner_names[i]));
            check(nango_str_is(tags[j].value, owner_values[i][expected[i]]));
            j++;
        }
    }

    check(j == n);
}


static void
check_connection(const nango_connection_t *c, unsigned which)
{
    unsigned char  hmac[NANGO_HMAC_LEN];
    connection_t  *e;

    e = &m.connections[which];

    hmac_make(hmac, e->hmac);

    check(c->status == e->status);
    check(c->created_sequence == e->created_sequence);
    check(c->updated_sequence == e->updated_sequence);
    check(c->created_at == e->created_at && c->updated_at == e->updated_at);
    check(c->status_since == e->status_since);
    check(c->checked_at == e->checked_at && c->repeats == e->repeats);
    check(memcmp(c->creation_hmac, hmac, NANGO_HMAC_LEN) == 0);
    check(nango_str_is(c->provider, providers[e->provider]));
    check(nango_str_is(c->error_type, errors[e->error]));
    check(nango_str_is(c->error_text, errors[e->error]));
    check(nango_str_is(c->connection_id, connections[which % CONNECTIONS]));
    check(nango_str_is(c->integration,
                       integrations[which / CONNECTIONS % INTEGRATIONS]));
    check(nango_str_is(c->environment,
                       environments[which / CONNECTIONS / INTEGRATIONS]));

    check_tags(c->tags, c->ntags, e->tags);
}


static const unsigned char *
key_of(unsigned which)
{
    static int            made[KNOWN];
    static unsigned char  keys[KNOWN][NANGO_KEY_LEN];

    if (!made[which]) {
        made[which] = 1;

        check(nango_connection_key(keys[which],
                      str(environments[which / CONNECTIONS / INTEGRATIONS]),
                      str(integrations[which / CONNECTIONS % INTEGRATIONS]),
                      str(connections[which % CONNECTIONS]))
              == 0);
    }

    return keys[which];
}


static void
check_all(void)
{
    int                  rc;
    unsigned             i;
    nango_counts_t       counts;
    nango_connection_t   c;

    check_ok(nango_reader_begin(reader, &failure));

    check(nango_reader_last(reader) == m.last);
    check(nango_reader_applied(reader) == m.applied);

    check_ok(nango_reader_counts(reader, &counts, &failure));

    m.counts.applied = m.applied;
    check(memcmp(&counts, &m.counts, sizeof(counts)) == 0);

    for (i = 0; i < KNOWN; i++) {
        rc = nango_reader_connection(reader, key_of(i), &c, &failure);

        check(rc == (m.connections[i].status != NANGO_STATUS_NONE));

        if (rc == 1) {
            check_connection(&c, i);
        }
    }

    nango_reader_end(reader);
}


/* An owner of one to three tags; how many. */

static size_t
owner_take(nango_str_t *in, unsigned *environment, unsigned tags[OWNERS],
    nango_tag_t list[OWNERS])
{
    size_t    i, n;
    unsigned  b;

    b = take_byte(in);

    *environment = b & 1;
    b >>= 1;

    for (i = 0, n = 0; i < OWNERS; i++) {
        tags[i] = b % 3;
        b /= 3;

        if (tags[i]) {
            list[n].name = str(owner_names[i]);
            list[n++].value = str(owner_values[i][tags[i]]);
        }
    }

    if (n == 0) {
        tags[0] = 1;
        list[n].name = str(owner_names[0]);
        list[n++].value = str(owner_values[0][1]);
    }

    return n;
}


static int
owner_has(const unsigned *owner, const unsigned *tags, const unsigned *old)
{
    size_t  i;

    for (i = 0; i < OWNERS; i++) {
        if (owner[i] && owner[i] != tags[i] && (!old || owner[i] != old[i])) {
            return 0;
        }
    }

    return 1;
}


/* The next of the owner below before, KNOWN if there is none. */

static unsigned
model_owned(unsigned environment, const unsigned *owner, uint64_t before)
{
    unsigned       i, found;
    connection_t  *c;

    found = KNOWN;

    for (i = 0; i < KNOWN; i++) {
        c = &m.connections[i];

        if (i / CONNECTIONS / INTEGRATIONS == environment
            && (c->status == NANGO_STATUS_VALID
                || c->status == NANGO_STATUS_INVALID)
            && owner_has(owner, c->tags, NULL)
            && (before == 0 || c->created_sequence < before)
            && (found == KNOWN
                || c->created_sequence > m.connections[found].created_sequence))
        {
            found = i;
        }
    }

    return found;
}


/* An owner's newest, as it is known from before or as it is found now. */

static void
check_newest(unsigned environment, const unsigned *tags,
    const nango_tag_t *list, size_t n)
{
    int                   rc;
    size_t                i;
    unsigned              expected;
    nango_str_t           question;
    nango_owned_t        *owned;
    unsigned char         bytes[1 + OWNERS], key[NANGO_KEY_LEN];
    nango_connection_t    c;
    nango_memo_answer_t   answer;

    if (memo == NULL) {
        memo = nango_memo_create(16);
        check(memo != NULL);
    }

    bytes[0] = (unsigned char) environment;

    for (i = 0; i < OWNERS; i++) {
        bytes[1 + i] = (unsigned char) tags[i];
    }

    question = nango_str(bytes, sizeof(bytes));

    rc = nango_memo_find(memo, reader, question, tags[0], &answer);

    if (rc == 0) {
        memset(&answer, 0, sizeof(answer));

        owned = nango_owned_open(reader, str(environments[environment]), list,
                                 n, 0, &failure);
        check(owned != NULL);

        if (nango_owned_next(owned, &c, &failure) == 1) {
            answer.status = c.status;
            answer.connection_id = c.connection_id;
            answer.provider = c.provider;
            memcpy(answer.key, c.key, NANGO_KEY_LEN);
        }

        check(nango_owner_key(key, str(environments[environment]),
                              list[0].name, list[0].value) == 0);

        nango_memo_keep(memo, reader, question, tags[0], key, &answer);
        nango_owned_close(owned);

        check(nango_memo_find(memo, reader, question, tags[0], &answer) == 1);
    }

    expected = model_owned(environment, tags, 0);

    if (expected == KNOWN) {
        check(answer.status == NANGO_STATUS_NONE);
        return;
    }

    check(answer.status == m.connections[expected].status);
    check(memcmp(answer.key, key_of(expected), NANGO_KEY_LEN) == 0);
    check(nango_str_eq(answer.connection_id,
                       str(connections[expected % CONNECTIONS])));
    check(nango_str_eq(answer.provider,
                       str(providers[m.connections[expected].provider])));
}


/* A list in pages. */

static void
op_list(nango_str_t *in)
{
    int                  rc;
    size_t               n, limit, left;
    uint64_t             before;
    unsigned             environment, expected, tags[OWNERS];
    nango_tag_t          list[OWNERS];
    nango_owned_t       *owned;
    nango_connection_t   c;

    n = owner_take(in, &environment, tags, list);
    limit = 1 + take_byte(in) % 4;
    before = take_byte(in);

    check_ok(nango_reader_begin(reader, &failure));

    check_newest(environment, tags, list, n);

    do {
        owned = nango_owned_open(reader, str(environments[environment]), list,
                                 n, before, &failure);
        check(owned != NULL);

        for (left = limit; left; left--) {
            expected = model_owned(environment, tags, before);
            rc = nango_owned_next(owned, &c, &failure);

            check(rc == (expected != KNOWN));

            if (rc == 0) {
                break;
            }

            check_connection(&c, expected);
            before = c.created_sequence;
        }

        nango_owned_close(owned);

    } while (left == 0);

    nango_reader_end(reader);
}


static void
op_changed(nango_str_t *in)
{
    int          expected;
    size_t       i, n;
    uint64_t     since;
    unsigned     environment, tags[OWNERS];
    change_t    *change;
    nango_tag_t  list[OWNERS];

    n = owner_take(in, &environment, tags, list);
    since = take_byte(in);
    since = (since < 128) ? since
            : (since - 128 < m.applied) ? m.applied - (since - 128) : 0;

    expected = 0;

    if (since >= m.applied) {
        expected = 0;

    } else if (since < m.forgotten) {
        expected = 2;

    } else {
        for (i = m.change; i < m.nchanges; i++) {
            change = &m.changes[i];

            if (change->sequence > since && change->environment == environment
                && owner_has(tags, change->tags, change->old))
            {
                expected = 1;
            }
        }
    }

    check_ok(nango_reader_begin(reader, &failure));

    check(nango_reader_changed(reader, str(environments[environment]), list, n,
                               since, &failure)
          == expected);

    nango_reader_end(reader);
}


static int
scan_one(void *data, uint64_t sequence, const nango_record_t *rec)
{
    size_t         *i = data;
    event_t        *e;
    unsigned char   hmac[NANGO_HMAC_LEN];

    /* a record of another version is passed over */

    while (*i < m.n && m.events[*i].sequence < sequence) {
        check(!m.events[*i].understood);
        (*i)++;
    }

    check(*i < m.n);
    e = &m.events[(*i)++];
    check(e->sequence == sequence);
    check(e->understood == (rec != NULL));

    if (rec != NULL) {
        hmac_make(hmac, e->hmac);

        check(rec->type == e->type && rec->operation == e->op);
        check(rec->received_at == e->at && rec->source == e->source);
        check(memcmp(rec->hmac, hmac, NANGO_HMAC_LEN) == 0);
        check(nango_str_is(rec->connection_id, connections[e->connection]));
    }

    return 0;
}


static void
op_scan(nango_str_t *in)
{
    size_t    i;
    uint64_t  from, first, last;

    from = take_byte(in);

    for (i = 0; i < m.n && m.events[i].sequence < from; i++) {
        /* void */
    }

    check(nango_log_scan(store, from, scan_one, &i, &failure) == 0);

    while (i < m.n) {
        check(!m.events[i++].understood);
    }

    check_ok(nango_log_bounds(store, &first, &last, &failure));
    check(first == (m.n ? m.events[0].sequence : 0));
    check(last == m.last);
}


static void
forget_state(void)
{
    m.applied = 0;
    m.forgotten = 0;
    m.nchanges = 0;
    m.change = 0;
    m.ntombstones = 0;
    m.tombstone = 0;

    memset(m.connections, 0, sizeof(m.connections));
    memset(&m.counts, 0, sizeof(m.counts));
}


static void
forget_all(void)
{
    nango_writer_free(writers[0]);
    nango_writer_free(writers[1]);
    nango_memo_free(memo);

    writers[0] = NULL;
    writers[1] = NULL;
    memo = NULL;
}


/* Closed and opened, perhaps with one half of it gone. */

static void
op_reopen(nango_str_t *in)
{
    char      path[128];
    unsigned  b;

    b = take_byte(in);

    if (m.opened++ >= OPENED) {
        return;
    }

    forget_all();
    store_close();

    if (b % 16 == 0) {
        snprintf(path, sizeof(path), "%s/state", directory);
        directory_remove(path);
        forget_state();

    } else if (b % 16 == 1) {
        snprintf(path, sizeof(path), "%s/log", directory);
        directory_remove(path);

        m.last = m.applied;
        m.floor = m.applied;
        m.n = 0;
    }

    store_open((b & 0x80) ? SMALL : SIZE);
}


/* As after a failed write of LMDB's meta page; writers and reader stay. */

static void
op_recover(void)
{
    if (m.opened++ >= OPENED) {
        return;
    }

    atomic_store(&store->trouble, NANGO_EBROKEN);
    check(nango_store_needs_recovery(store));

    check_ok(nango_store_recover(store, &failure));
    check(!nango_store_needs_recovery(store));
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned     b;
    nango_str_t  in;

    memset(&m, 0, sizeof(m));
    m.clock = T0;

    store_empty();
    store->size = SIZE;

    in = nango_str(data, size);

    while (in.len) {
        b = take_byte(&in);

        switch (b % 16) {

        case 0: case 1: case 2: case 3: case 4:
            op_commit(&in, b >> 4);
            break;

        case 5: case 6: case 7:
            op_fold(&in, b >> 4);
            check_all();
            break;

        case 8:
            op_list(&in);
            break;

        case 9:
            op_changed(&in);
            break;

        case 10:
            op_scan(&in);
            break;

        case 11:
            op_foreign(&in);
            break;

        case 12:
            op_recover();
            check_all();
            break;

        case 13:
            op_reopen(&in);
            check_all();
            break;

        case 14:
            m.clock += (b >> 4) * 10000;
            break;

        case 15:
            m.clock += (b >> 4) * HOUR / 4;
            break;
        }
    }

    check_all();
    forget_all();

    return 0;
}
