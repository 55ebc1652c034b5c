/*
 * Copyright (C) nginx-nango authors
 *
 * Whatever happens to subscribers, in whatever order, beside a model of it
 * that keeps a state for each event: the ledgers, the lists of rows and all
 * that is read are the model's after each step.  NANGO_SEED: another run;
 * NANGO_STEPS: a longer one.
 */

#include "store_deliver.h"


#define EVENTS       4096
#define SUBSCRIBERS  4
#define CONNECTIONS  3
#define RETAIN       (24 * HOUR)


typedef enum {
    UNSEEN = 0,                 /* or not of the environment */
    DELIVERED,
    SKIPPED,
    WAITING,
    DEAD,
    FORGOTTEN                   /* with an earlier life of the subscriber */
} fate_e;

typedef struct {
    int                   environment;
    int                   connection;   /* CONNECTIONS: none */
    int                   type;
    int                   repair;
    int                   pruned;
    uint64_t              at;
} model_event_t;

typedef struct {
    nango_subscriber_t    s;
    int                   environment;
    int                   known;
    int                   parked;
    uint64_t              cursor;
    uint64_t              redelivered;
    unsigned char         fate[EVENTS];
    uint32_t              attempts[EVENTS];
    uint64_t              next_at[EVENTS];
} model_t;


static const char  *environments[] = { "prod", "other" };
static const char  *connections[] = { "one", "two", "three", NULL };

static model_event_t  events[EVENTS];
static model_t        models[SUBSCRIBERS];
static uint64_t       last, applied, now;
static nango_store_t *store;


static unsigned
roll(unsigned n)
{
    return random_below(n);
}


static int
wanted(const model_t *m, uint64_t n)
{
    return (m->s.types == 0
            || (m->s.types & NANGO_DELIVERY_TYPE(events[n].type)))
           && (m->s.repairs || !events[n].repair);
}


static int
lane_of(uint64_t n)
{
    return (events[n].connection == CONNECTIONS) ? -1 - (int) n
                                                 : events[n].connection;
}


static int
held(const model_t *m, uint64_t n)
{
    uint64_t  i;

    for (i = 1; i <= m->cursor; i++) {

        if (m->fate[i] == WAITING && lane_of(i) == lane_of(n)) {
            return 1;
        }
    }

    return 0;
}


static void
step_append(void)
{
    event_t         e;
    model_event_t  *m;

    if (last + 2 >= EVENTS) {
        return;
    }

    m = &events[last + 1];

    m->environment = roll(2);
    m->connection = roll(CONNECTIONS + 1);
    m->type = 2 + roll(3);
    m->repair = (roll(10) == 0);
    m->at = now;

    memset(&e, 0, sizeof(e));

    e.environment = environments[m->environment];
    e.id = connections[m->connection];
    e.type = m->type;
    e.source = m->repair ? NANGO_SOURCE_REPAIR : NANGO_SOURCE_NANGO;
    e.at = now;
    e.hmac = (unsigned) last;

    assert_sequence(append(store, &e), last + 1);
    last++;
}


/* Folds, and settles what o says of m, which may be NULL. */

static int
step_fold(model_t *m, uint64_t before, owing_t *o, int park)
{
    nango_folded_t        folded;
    nango_settlement_t    settlement;
    nango_fold_options_t  options;

    memset(&options, 0, sizeof(options));
    memset(&settlement, 0, sizeof(settlement));

    options.now_ms = T0 + now;
    options.retain_ms = RETAIN;
    options.max_events = 1 + roll(20);

    if (m) {
        memcpy(settlement.key, m->s.key, NANGO_KEY_LEN);
        settlement.cursor_before = before;
        settlement.cursor = o->position;
        settlement.settled = o->settled;
        settlement.nsettled = o->nsettled;
        settlement.park = park;

        options.settlements = &settlement;
        options.nsettlements = 1;
    }

    assert_ok(nango_fold(store, &options, &folded, &failure));

    applied = folded.applied;

    return settlement.stale;
}


/*
 * Outcomes of what is in o: of each lane a beginning is delivered or dead, and
 * after the first that failed the others wait.
 */

static void
outcomes(model_t *m, owing_t *o, nango_settled_e *kinds, int *n, int late)
{
    int                lane, failed[CONNECTIONS];
    unsigned           r;
    uint64_t           next_at;
    nango_settled_e    kind;
    nango_delivery_t  *d;

    memset(failed, 0, sizeof(failed));
    *n = 0;

    while ((d = o->deliveries) != NULL) {
        lane = lane_of(d->sequence);
        r = roll(10);
        next_at = 0;

        if (lane >= 0 && failed[lane]) {
            kind = NANGO_SETTLED_WAITING;

        } else if (r < 5) {
            kind = NANGO_SETTLED_DELIVERED;

        } else if (r < 6) {
            kind = NANGO_SETTLED_DEAD;

        } else if (r < 7 && late) {
            kind = NANGO_SETTLED_SKIPPED;

        } else {
            kind = NANGO_SETTLED_WAITING;
            next_at = T0 + now + 1 + roll(HOUR);

            if (lane >= 0) {
                failed[lane] = 1;
            }
        }

        kinds[(*n)++] = kind;
        (void) settle(o, kind, next_at);
    }
}


/* What settled says, of events that waited or are new. */

static void
model_settle(model_t *m, const nango_settled_t *s)
{
    uint64_t  i;

    switch (s->kind) {

    case NANGO_SETTLED_DELIVERED:

        for (i = 1; i < s->sequence; i++) {
            assert_false(m->fate[i] == WAITING
                         && lane_of(i) == lane_of(s->sequence));
        }

        m->fate[s->sequence] = DELIVERED;

        for (i = s->sequence + 1; i <= m->cursor; i++) {

            if (m->fate[i] == WAITING && lane_of(i) == lane_of(s->sequence)) {
                m->next_at[i] = 0;
                break;
            }
        }

        break;

    case NANGO_SETTLED_SKIPPED:
        m->fate[s->sequence] = SKIPPED;
        break;

    case NANGO_SETTLED_WAITING:
        m->fate[s->sequence] = WAITING;
        m->attempts[s->sequence] = s->attempts;
        m->next_at[s->sequence] = s->next_at;
        break;

    case NANGO_SETTLED_DEAD:
        m->fate[s->sequence] = DEAD;
        m->attempts[s->sequence] = s->attempts;
        break;
    }
}


static void
step_read(model_t *m)
{
    int                n, i, stale;
    size_t             at;
    owing_t            o;
    uint64_t           before, s, skips[EVENTS], skipped;
    nango_settled_e    kinds[EVENTS];
    nango_delivery_t  *d;

    memset(&o, 0, sizeof(o));

    before = m->cursor;
    o.position = before;

    read_more(store, &m->s, &o, 1 + roll(30));

    d = o.deliveries;
    at = 0;
    skipped = 0;
    memset(skips, 0, sizeof(skips));

    assert_true(o.position >= before && o.position <= applied);
    assert_int_equal(o.more, o.position < applied);

    for (s = before + 1; s <= o.position; s++) {

        if (events[s].environment != m->environment
            || m->fate[s] == FORGOTTEN)
        {
            continue;
        }

        if (!wanted(m, s)) {
            skips[s] = 1;
            skipped++;
            continue;
        }

        if (held(m, s)) {
            while (o.settled[at].kind == NANGO_SETTLED_SKIPPED) {
                skipped -= o.settled[at].count;
                at++;
                assert_true(at < o.nsettled);
            }

            assert_sequence(o.settled[at].sequence, s);
            assert_int_equal(o.settled[at].kind, NANGO_SETTLED_WAITING);
            at++;
            continue;
        }

        assert_non_null(d);
        assert_sequence(d->sequence, s);
        assert_true(nango_str_is(d->record.environment,
                                 environments[m->environment]));
        assert_int_equal(d->row, 0);
        d = d->next;
    }

    assert_null(d);

    for ( /* void */ ; at < o.nsettled; at++) {
        assert_int_equal(o.settled[at].kind, NANGO_SETTLED_SKIPPED);
        skipped -= o.settled[at].count;
    }

    assert_sequence(skipped, 0);

    outcomes(m, &o, kinds, &n, 0);

    if (roll(8) == 0) {

        /* Who does not know where the cursor is. */

        assert_int_equal(step_fold(m, before + 1, &o, 0), 1);
        owing_free(&o);
        return;
    }

    stale = step_fold(m, before, &o, 0);
    assert_int_equal(stale, 0);

    m->cursor = o.position;

    for (s = before + 1; s <= o.position; s++) {

        if (skips[s]) {
            m->fate[s] = SKIPPED;
        }
    }

    for (i = 0; (size_t) i < o.nsettled; i++) {

        if (o.settled[i].kind != NANGO_SETTLED_SKIPPED) {
            model_settle(m, &o.settled[i]);
        }
    }

    owing_free(&o);
}


static uint64_t
head_of(const model_t *m, int lane)
{
    uint64_t  i;

    for (i = 1; i <= m->cursor; i++) {

        if (m->fate[i] == WAITING && lane_of(i) == lane) {
            return i;
        }
    }

    return 0;
}


static void
step_due(model_t *m)
{
    int                n, lanes;
    owing_t            o;
    uint64_t           s, next, time, expected, all;
    nango_settled_e    kinds[EVENTS];
    nango_delivery_t  *d;
    static int         taken[EVENTS];

    memset(&o, 0, sizeof(o));
    memset(taken, 0, sizeof(taken));

    o.position = m->cursor;

    all = (roll(8) == 0);

    due(store, &m->s, &o, all ? UINT64_MAX : T0 + now, EVENTS);
    assert_int_equal(o.nsettled, 0);

    /* Lanes in the order of their time, each from its head on. */

    time = 0;
    lanes = 0;

    for (d = o.deliveries; d; d = d->next) {
        s = d->sequence;
        assert_int_equal(m->fate[s], WAITING);
        assert_int_equal(d->row, 1);
        assert_int_equal(d->attempts, m->attempts[s]);
        assert_false(taken[s]);

        if (head_of(m, lane_of(s)) == s) {
            assert_true(all || m->next_at[s] <= T0 + now);
            assert_true(m->next_at[s] >= time);
            time = m->next_at[s];
            lanes++;

        } else {

            for (next = s - 1; next; next--) {

                if (m->fate[next] == WAITING && lane_of(next) == lane_of(s)) {
                    break;
                }
            }

            assert_true(next && taken[next]);
        }

        taken[s] = 1;
    }

    expected = 0;

    for (s = 1; s <= m->cursor; s++) {

        if (m->fate[s] != WAITING || taken[s]) {
            continue;
        }

        next = head_of(m, lane_of(s));

        if (next == s) {
            assert_false(all || m->next_at[s] <= T0 + now);

            if (expected == 0 || m->next_at[s] < expected) {
                expected = m->next_at[s];
            }
        }
    }

    assert_sequence(o.next_at, expected);

    outcomes(m, &o, kinds, &n, 1);

    if (o.nsettled == 0) {
        owing_free(&o);
        return;
    }

    assert_int_equal(step_fold(m, m->cursor, &o, 0), 0);

    for (n = 0; (size_t) n < o.nsettled; n++) {
        model_settle(m, &o.settled[n]);
    }

    owing_free(&o);
}


static void
step_redeliver(model_t *m)
{
    int          more;
    uint64_t     s, n, dead, max, sequence;
    nango_rc_e   rc;

    dead = 0;
    sequence = 0;

    for (s = 1; s <= m->cursor; s++) {

        if (m->fate[s] == DEAD) {
            dead++;

            if (roll(3) == 0) {
                sequence = s;
            }
        }
    }

    max = 1 + roll(4);

    if (roll(2)) {
        sequence = 0;
    }

    rc = nango_delivery_redeliver(store, m->s.key, sequence, max, T0 + now,
                                  &n, &more, &failure);

    if (dead == 0 || !m->known) {
        assert_int_equal(rc, NANGO_EINVAL);
        assert_sequence(n, 0);
        return;
    }

    assert_ok(rc);

    if (sequence) {
        assert_sequence(n, 1);
        assert_int_equal(more, 0);

    } else {
        assert_sequence(n, dead < max ? dead : max);
        assert_int_equal(more, dead > max);
    }

    dead = n;

    for (s = 1; s <= m->cursor && dead; s++) {

        if (m->fate[s] == DEAD && (sequence == 0 || s == sequence)) {
            m->fate[s] = WAITING;
            m->attempts[s] = 0;
            m->next_at[s] = 0;
            m->redelivered++;
            dead--;
        }
    }
}


static void
step_park(model_t *m)
{
    int         rows;
    owing_t     o;
    uint64_t    s;
    nango_rc_e  rc;

    memset(&o, 0, sizeof(o));

    if (roll(2)) {
        o.position = m->cursor;
        assert_int_equal(step_fold(m, m->cursor, &o, 1), 0);
        m->parked = 1;
        return;
    }

    rows = 0;

    for (s = 1; s <= m->cursor; s++) {
        rows += (m->fate[s] == WAITING);
    }

    rc = nango_delivery_resume(store, m->s.key, T0 + now, &failure);

    if (!m->parked && rows == 0) {
        assert_int_equal(rc, NANGO_EINVAL);
        return;
    }

    assert_ok(rc);

    m->parked = 0;

    for (s = 1; s <= m->cursor; s++) {

        if (m->fate[s] == WAITING && head_of(m, lane_of(s)) == s) {
            m->next_at[s] = 0;
        }
    }
}


/* What was there before is not its own, but for what it reads again. */

static void
model_register(model_t *m)
{
    uint64_t  s;

    subscribe(store, &m->s);

    m->known = 1;
    m->parked = 0;
    m->redelivered = 0;
    m->cursor = applied;

    for (s = 1; s <= last; s++) {
        m->fate[s] = FORGOTTEN;
    }

    if (m->s.from_start) {

        for (s = applied; s && !events[s].pruned; s--) {
            m->cursor = s - 1;
        }

        /* Some that are left may be before others that are not. */

        for ( /* void */ ; s; s--) {

            if (!events[s].pruned) {
                m->cursor = s - 1;
            }
        }
    }

    for (s = m->cursor + 1; s < EVENTS; s++) {
        m->fate[s] = (s <= last && events[s].pruned) ? FORGOTTEN : UNSEEN;
    }
}


static void
step_forget(model_t *m)
{
    int       more;
    uint64_t  n, s, rows;

    rows = 0;

    for (s = 1; s <= m->cursor; s++) {
        rows += (m->fate[s] == WAITING || m->fate[s] == DEAD);
    }

    do {
        assert_ok(nango_delivery_forget(store, m->s.key, 3, &n, &more,
                                        &failure));
        assert_true(n <= 3);
        rows -= n;

        if (more) {
            (void) ledger(store, &m->s);
        }

    } while (more);

    assert_sequence(rows, 0);

    assert_int_equal(nango_delivery_forget(store, m->s.key, 3, &n, &more,
                                           &failure),
                     NANGO_EINVAL);

    model_register(m);
}


static void
step_prune(void)
{
    int                    i, owed;
    uint64_t               s, from, n;
    nango_pruned_t         pruned;
    nango_prune_options_t  options;

    memset(&options, 0, sizeof(options));

    options.now_ms = T0 + now;
    options.retain_ms = RETAIN;
    options.max_events = 1 + roll(50);

    from = 0;
    n = 0;

    do {
        assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
        n += pruned.pruned;
    } while (pruned.more);

    for (s = 1; s < last && s <= applied; s++) {

        if (now - events[s].at <= RETAIN) {
            break;
        }

        owed = 0;

        for (i = 0; i < SUBSCRIBERS; i++) {

            if (models[i].fate[s] == WAITING || models[i].fate[s] == DEAD
                || (models[i].environment == events[s].environment
                    && models[i].cursor < s))
            {
                owed = 1;
            }
        }

        if (!owed && !events[s].pruned) {
            events[s].pruned = 1;
            n--;
        }
    }

    assert_sequence(n, 0);
}


typedef struct {
    const model_t        *m;
    int                   fate;
    uint64_t              after;
    size_t                n;
} listing_t;


static void
check_owed(void *data, const nango_owed_t *owed)
{
    listing_t *l = data;

    uint64_t  s;

    for (s = l->after + 1; s < owed->sequence; s++) {
        assert_int_not_equal(l->m->fate[s], l->fate);
    }

    assert_int_equal(l->m->fate[s], l->fate);
    assert_int_equal(owed->attempts, l->m->attempts[s]);

    if (l->fate == WAITING) {
        assert_sequence(owed->next_at, l->m->next_at[s]);
    }

    l->after = s;
    l->n++;
}


static void
check_list(nango_reader_t *reader, const model_t *m, int fate, uint64_t n)
{
    int        rc;
    listing_t  l;

    l.m = m;
    l.fate = fate;
    l.after = 0;
    l.n = 0;

    do {
        rc = nango_reader_owed(reader, m->s.key, fate == DEAD, l.after, 7,
                               check_owed, &l, &failure);
        assert_true(rc >= 0);
    } while (rc == 1);

    assert_sequence(l.n, n);
}


static void
check(void)
{
    int              i;
    uint64_t         s, n[FORGOTTEN + 1];
    const model_t   *m;
    nango_ledger_t   l;
    nango_reader_t  *reader;

    reader = snapshot(store);

    for (i = 0; i < SUBSCRIBERS; i++) {
        m = &models[i];

        memset(n, 0, sizeof(n));

        for (s = 1; s <= applied; s++) {

            if (events[s].environment == m->environment) {
                n[m->fate[s]]++;
            }
        }

        assert_int_equal(nango_reader_ledger(reader, m->s.key, &l, &failure),
                         1);
        assert_sequence(l.cursor, m->cursor);
        assert_sequence(l.delivered, n[DELIVERED]);
        assert_sequence(l.skipped, n[SKIPPED]);
        assert_sequence(l.dead, n[DEAD]);
        assert_sequence(l.rows, n[WAITING]);
        assert_sequence(l.waiting, n[WAITING] + n[UNSEEN]);
        assert_sequence(l.lost, 0);
        assert_sequence(l.stored, n[DELIVERED] + n[SKIPPED] + n[DEAD]
                                  + n[WAITING] + n[UNSEEN]);
        assert_sequence(l.redelivered, m->redelivered);
        assert_int_equal(l.parked_at != 0, m->parked);

        check_list(reader, m, DEAD, n[DEAD]);
        check_list(reader, m, WAITING, n[WAITING]);
    }

    snapshot_end(reader);
}


/* No row of any table that the others do not know of. */

static void
check_tables(void)
{
    int            i;
    MDB_txn       *txn;
    uint64_t       s, rows, dead, lanes;
    MDB_stat       owed, own, waiting, when;

    rows = 0;
    dead = 0;
    lanes = 0;

    for (i = 0; i < SUBSCRIBERS; i++) {

        for (s = 1; s <= models[i].cursor; s++) {
            dead += (models[i].fate[s] == DEAD);

            if (models[i].fate[s] == WAITING) {
                rows++;
                lanes += (head_of(&models[i], lane_of(s)) == s);
            }
        }
    }

    assert_int_equal(mdb_txn_begin(store->state, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_stat(txn, store->owed, &owed), 0);
    assert_int_equal(mdb_stat(txn, store->rows, &own), 0);
    assert_int_equal(mdb_stat(txn, store->lanes, &waiting), 0);
    assert_int_equal(mdb_stat(txn, store->due, &when), 0);
    mdb_txn_abort(txn);

    assert_sequence(owed.ms_entries, rows + dead);
    assert_sequence(own.ms_entries, rows + dead);
    assert_sequence(waiting.ms_entries, rows);
    assert_sequence(when.ms_entries, lanes);
}


static void
ledgers_close_whatever_happens(void **state)
{
    int                 i, steps;
    model_t            *m;
    unsigned            r;
    static const char  *names[] = { "first", "second", "third", "fourth" };

    steps = getenv("NANGO_STEPS") ? atoi(getenv("NANGO_STEPS")) : 1500;

    for (i = getenv("NANGO_SEED") ? atoi(getenv("NANGO_SEED")) : 0; i; i--) {
        (void) roll(2);
    }

    store = store_open();

    for (i = 0; i < SUBSCRIBERS; i++) {
        m = &models[i];

        m->environment = i / 2 % 2;
        m->s = subscriber(environments[m->environment], names[i]);
        m->s.types = (i % 2) ? NANGO_DELIVERY_TYPE(NANGO_TYPE_SYNC) : 0;
        m->s.repairs = (i == 2);
        m->s.from_start = (i == 3);

        model_register(m);
    }

    for (i = 0; i < steps; i++) {
        m = &models[roll(SUBSCRIBERS)];
        r = roll(100);

        if (r < 40) {
            step_append();

        } else if (r < 50) {
            (void) step_fold(NULL, 0, NULL, 0);

        } else if (r < 65) {
            step_read(m);

        } else if (r < 80) {
            step_due(m);

        } else if (r < 84) {
            step_redeliver(m);

        } else if (r < 88) {
            step_park(m);

        } else if (r < 89) {
            step_forget(m);

        } else if (r < 93) {
            step_prune();

        } else if (r < 94) {
            nango_store_close(store);
            store = store_open();

        } else {
            now += roll(4 * HOUR);
        }

        check();

        if (i % 16 == 0) {
            check_tables();
        }
    }

    check_tables();

    nango_store_close(store);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(ledgers_close_whatever_happens)
    };

    return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
