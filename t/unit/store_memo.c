/*
 * Copyright (C) nginx-nango authors
 *
 * What lookups have found: forgotten when a snapshot would say something else,
 * and not before.
 */

#include "store_test.h"

#include "nango_memo.h"


#define ALL  (7 * 24 * HOUR)


static nango_store_t   *store;
static nango_reader_t  *reader;
static nango_memo_t    *memo;


/* The whole of it, with a connection of 42's and one of 43's. */

static void
begin(size_t entries)
{
    event_t  e = { .op = NANGO_OP_CREATION, .success = NANGO_SUCCESS_TRUE,
                   .id = "a", .hmac = 1, .provider = "github",
                   .tags = "{\"end_user_id\":\"42\",\"team\":\"x\"}" };

    store = store_open();
    (void) append(store, &e);

    e.id = "b";
    e.hmac = 2;
    e.tags = "{\"end_user_id\":\"43\",\"team\":\"x\"}";
    (void) append(store, &e);

    (void) fold(store);

    reader = nango_reader_create(store);
    memo = nango_memo_create(entries);
    assert_non_null(reader);
    assert_non_null(memo);
}


static void
end(void)
{
    nango_memo_free(memo);
    nango_reader_free(reader);
    nango_store_close(store);
}


static int
knows_in(nango_str_t question, uint32_t hash, nango_memo_answer_t *answer)
{
    return nango_memo_find(memo, reader, question, hash, answer);
}


static int
knows(const char *question)
{
    int                  rc;
    nango_memo_answer_t  answer;

    assert_ok(nango_reader_begin_state(reader, &failure));
    rc = knows_in(Z(question), 7, &answer);
    nango_reader_end(reader);

    return rc;
}


/* Asks, and has it keep an answer that tells itself from others. */

static void
keep_as(const char *question, const char *owner, uint32_t hash)
{
    unsigned char        key[NANGO_KEY_LEN];
    nango_memo_answer_t  answer;

    assert_int_equal(nango_owner_key(key, S("prod"), S("end_user_id"),
                                     Z(owner)), 0);

    assert_ok(nango_reader_begin_state(reader, &failure));
    assert_int_equal(knows_in(Z(question), hash, &answer), 0);

    memset(&answer, 0, sizeof(nango_memo_answer_t));

    answer.status = NANGO_STATUS_VALID;
    memset(answer.key, question[0], NANGO_KEY_LEN);
    answer.connection_id = Z(question);
    answer.provider = Z(owner);

    nango_memo_keep(memo, reader, Z(question), hash, key, &answer);

    nango_reader_end(reader);
}


static void
keep(const char *question, const char *owner)
{
    keep_as(question, owner, 7);
}


static void
happens(event_t e)
{
    static unsigned  hmac = 100;

    e.hmac = hmac++;
    (void) append(store, &e);
    (void) fold(store);
}


static void
what_was_kept_is_found(void **state)
{
    nango_memo_answer_t  answer;

    begin(64);

    assert_false(knows("q"));
    keep("q", "42");

    assert_ok(nango_reader_begin_state(reader, &failure));
    assert_int_equal(knows_in(S("q"), 7, &answer), 1);
    assert_int_equal(answer.status, NANGO_STATUS_VALID);
    assert_int_equal(answer.key[NANGO_KEY_LEN - 1], 'q');
    assert_true(nango_str_eq(answer.connection_id, S("q")));
    assert_true(nango_str_eq(answer.provider, S("42")));

    /* Of the same hash, and so of the same set. */

    assert_int_equal(knows_in(S("r"), 7, &answer), 0);
    assert_int_equal(knows_in(S("q2"), 7, &answer), 0);
    assert_int_equal(knows_in(S(""), 7, &answer), 0);

    /* Of another one. */

    assert_int_equal(knows_in(S("q"), 8, &answer), 0);
    nango_reader_end(reader);

    end();
}


static void
an_answer_may_have_no_strings(void **state)
{
    unsigned char        key[NANGO_KEY_LEN] = { 1 };
    nango_memo_answer_t  answer;

    begin(64);

    memset(&answer, 0, sizeof(nango_memo_answer_t));

    assert_ok(nango_reader_begin_state(reader, &failure));
    assert_int_equal(knows_in(S("q"), 7, &answer), 0);
    nango_memo_keep(memo, reader, S("q"), 7, key, &answer);

    memset(&answer, 1, sizeof(nango_memo_answer_t));

    assert_int_equal(knows_in(S("q"), 7, &answer), 1);
    assert_int_equal(answer.status, NANGO_STATUS_NONE);
    assert_null(answer.connection_id.data);
    assert_null(answer.provider.data);
    nango_reader_end(reader);

    end();
}


/* Each kind of change, and whom it concerns. */

static void
a_change_is_its_owners(void **state)
{
    size_t  i;

    static const struct {
        event_t  e;
        int      forty_two;
        int      forty_three;
    } changes[] = {
        /* creation of one more */
        { { .op = NANGO_OP_CREATION, .success = NANGO_SUCCESS_TRUE,
            .id = "c", .tags = "{\"end_user_id\":\"42\"}" }, 1, 0 },

        /* of somebody else's */
        { { .op = NANGO_OP_CREATION, .success = NANGO_SUCCESS_TRUE,
            .id = "d", .tags = "{\"end_user_id\":\"44\"}" }, 0, 0 },

        /* in another environment */
        { { .op = NANGO_OP_CREATION, .success = NANGO_SUCCESS_TRUE,
            .id = "e", .tags = "{\"end_user_id\":\"42\"}",
            .environment = "dev" }, 0, 0 },

        /* given to somebody */
        { { .op = NANGO_OP_OVERRIDE, .success = NANGO_SUCCESS_TRUE,
            .id = "d", .tags = "{\"end_user_id\":\"43\"}" }, 0, 1 },

        /* taken from one and given to the other */
        { { .op = NANGO_OP_OVERRIDE, .success = NANGO_SUCCESS_TRUE,
            .id = "c", .tags = "{\"end_user_id\":\"43\"}" }, 1, 1 },

        /* broken, mended */
        { { .op = NANGO_OP_REFRESH, .success = NANGO_SUCCESS_FALSE,
            .id = "a", .error = "refresh_failed" }, 1, 0 },
        { { .op = NANGO_OP_OVERRIDE, .success = NANGO_SUCCESS_TRUE,
            .id = "a" }, 1, 0 },

        /* with another provider */
        { { .op = NANGO_OP_OVERRIDE, .success = NANGO_SUCCESS_TRUE,
            .id = "a", .provider = "other" }, 1, 0 },

        /* deleted */
        { { .op = NANGO_OP_DELETION, .success = NANGO_SUCCESS_TRUE,
            .id = "b" }, 0, 1 }
    };

    begin(64);

    for (i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {

        if (!knows("q")) {
            keep("q", "42");
        }

        if (!knows("r")) {
            keep("r", "43");
        }

        happens(changes[i].e);

        assert_int_equal(knows("q"), !changes[i].forty_two);
        assert_int_equal(knows("r"), !changes[i].forty_three);
    }

    end();
}


/* An event, and the transactions of others, that leave everything as it is. */

static void
what_changes_nothing_is_no_change(void **state)
{
    event_t             e = { .op = NANGO_OP_OVERRIDE, .id = "a",
                              .success = NANGO_SUCCESS_TRUE };
    uint64_t            before;
    nango_subscriber_t  s;

    begin(64);

    keep("q", "42");
    happens(e);
    happens(e);
    assert_true(knows("q"));

    memset(&s, 0, sizeof(s));
    s.environment = S("prod");
    s.name = S("app");
    assert_int_equal(nango_subscriber_key(s.key, s.environment, s.name), 0);

    before = nango_store_state_txnid(store);
    assert_ok(nango_delivery_register(store, &s, 1, T0, &failure));
    assert_true(nango_store_state_txnid(store) > before);
    assert_true(knows("q"));

    end();
}


/* It is the reader's snapshot that counts, not what is there by now. */

static void
a_snapshot_is_answered_as_it_is(void **state)
{
    event_t              e = { .op = NANGO_OP_DELETION, .id = "a",
                               .success = NANGO_SUCCESS_TRUE, .hmac = 9 };
    nango_memo_answer_t  answer;

    begin(64);
    keep("q", "42");

    assert_ok(nango_reader_begin_state(reader, &failure));
    (void) append(store, &e);
    (void) fold(store);
    assert_int_equal(knows_in(S("q"), 7, &answer), 1);
    nango_reader_end(reader);

    assert_false(knows("q"));

    end();
}


/* Found in a snapshot that the memo has not seen. */

static void
what_is_of_another_snapshot_is_not_kept(void **state)
{
    event_t              e = { .op = NANGO_OP_DELETION, .id = "a",
                               .success = NANGO_SUCCESS_TRUE };
    unsigned char        key[NANGO_KEY_LEN] = { 1 };
    nango_memo_answer_t  answer;

    begin(64);

    assert_false(knows("q"));
    happens(e);

    memset(&answer, 0, sizeof(nango_memo_answer_t));

    assert_ok(nango_reader_begin_state(reader, &failure));
    nango_memo_keep(memo, reader, S("q"), 7, key, &answer);
    assert_int_equal(knows_in(S("q"), 7, &answer), 0);
    nango_reader_end(reader);

    end();
}


static void
a_gap_in_the_changes_forgets_all(void **state)
{
    int              i, j;
    event_t          e = { .op = NANGO_OP_CREATION, .id = "far",
                           .success = NANGO_SUCCESS_TRUE,
                           .tags = "{\"end_user_id\":\"1\"}" };
    nango_write_t   *jobs[100];
    nango_writer_t  *writer;

    begin(64);

    /* after an hour nobody knows */

    keep("q", "42");
    happens(e);
    (void) fold_at(store, 2 * HOUR, ALL, 0);
    keep("q", "42");
    assert_true(knows("q"));

    /* too many to be looked at by a worker */

    writer = nango_writer_create(store, 0);
    assert_non_null(writer);

    for (i = 0; i < 50; i++) {

        for (j = 0; j < 100; j++) {
            e.hmac = 1000 + i * 100 + j;
            jobs[j] = job_make(&e);
        }

        assert_ok(nango_log_commit(writer, jobs, 100, &failure));

        for (j = 0; j < 100; j++) {
            job_free(jobs[j]);
        }
    }

    nango_writer_free(writer);

    (void) fold(store);
    keep("q", "42");
    assert_true(knows("q"));

    end();
}


static void
a_store_that_was_opened_again_is_another(void **state)
{
    begin(64);

    keep("q", "42");

    atomic_store(&store->trouble, NANGO_EBROKEN);
    assert_ok(nango_store_recover(store, &failure));

    assert_false(knows("q"));
    keep("q", "42");
    assert_true(knows("q"));

    end();
}


/* What was applied is cut off in the state's table: nothing is believed. */

static void
an_unreadable_state_is_not_known(void **state)
{
    MDB_txn              *txn;
    MDB_val               key, val;
    unsigned char         owner[NANGO_KEY_LEN] = { 1 };
    nango_memo_answer_t   answer;

    begin(64);

    keep("q", "42");

    key = nango_val("applied", 7);
    val = nango_val("x", 1);

    assert_int_equal(mdb_txn_begin(store->state, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, store->state_meta, &key, &val, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);

    memset(&answer, 0, sizeof(nango_memo_answer_t));

    assert_ok(nango_reader_begin_state(reader, &failure));
    assert_int_equal(knows_in(S("q"), 7, &answer), 0);
    nango_memo_keep(memo, reader, S("q"), 7, owner, &answer);
    assert_int_equal(knows_in(S("q"), 7, &answer), 0);
    nango_reader_end(reader);

    end();
}


static void
what_does_not_fit_is_not_kept(void **state)
{
    char  question[NANGO_MEMO_MAX + 2];

    begin(64);

    /* The question comes twice, the second time as an id; then the owner. */

    memset(question, 'q', sizeof(question));
    question[NANGO_MEMO_MAX / 2 - 1] = '\0';
    keep(question, "42");
    assert_true(knows(question));

    question[NANGO_MEMO_MAX / 2 - 1] = 'q';
    question[NANGO_MEMO_MAX / 2] = '\0';
    keep(question, "42");
    assert_false(knows(question));

    question[NANGO_MEMO_MAX / 2] = 'q';
    question[NANGO_MEMO_MAX / 2 + 1] = '\0';
    keep(question, "42");
    assert_false(knows(question));

    question[NANGO_MEMO_MAX / 2 + 1] = 'q';
    question[NANGO_MEMO_MAX + 1] = '\0';
    keep(question, "42");
    assert_false(knows(question));

    end();
}


static void
new_ones_take_the_place_of_others(void **state)
{
    int   i;
    char  question[3] = "q0";

    begin(8);

    /* Two sets of four: by the hash. */

    keep_as("other", "43", 6);

    for (i = 0; i < 9; i++) {
        question[1] = (char) ('0' + i);
        keep(question, "42");
        assert_true(knows(question));
    }

    for (i = 0; i < 9; i++) {
        question[1] = (char) ('0' + i);
        assert_int_equal(knows(question), i > 4);
    }

    /* What is not known any more goes first. */

    keep("r1", "43");
    keep("q9", "42");
    happens((event_t) { .op = NANGO_OP_DELETION, .id = "a",
                        .success = NANGO_SUCCESS_TRUE });
    keep("r2", "43");
    keep("r3", "43");
    keep("r4", "43");
    assert_true(knows("r1") && knows("r2") && knows("r3") && knows("r4"));

    end();
}


/* The newest valid one, else the newest: as nango_require has it. */

static void
look(unsigned owner, unsigned team, nango_memo_answer_t *answer)
{
    int                  rc;
    size_t               n;
    nango_tag_t          tags[2];
    nango_owned_t       *o;
    nango_connection_t   c;
    static char          ids[2][16];

    tags[0].name = S("end_user_id");
    tags[0].value = nango_str(&"0123456789"[owner], 1);
    tags[1].name = S("team");
    tags[1].value = nango_str(&"xyz"[team], 1);

    memset(answer, 0, sizeof(nango_memo_answer_t));

    o = nango_owned_open(reader, S("prod"), tags, team < 3 ? 2 : 1, 0,
                         &failure);
    assert_non_null(o);
    nango_owned_only(o, S("github"), 1000);

    for ( ;; ) {
        rc = nango_owned_next(o, &c, &failure);

        if (rc != 1) {
            break;
        }

        if (answer->status == NANGO_STATUS_NONE
            || c.status == NANGO_STATUS_VALID)
        {
            answer->status = c.status;
            memcpy(answer->key, c.key, NANGO_KEY_LEN);
            n = c.connection_id.len;
            memcpy(ids[0], c.connection_id.data, n);
            answer->connection_id = nango_str(ids[0], n);
            n = c.provider.len;

            if (n) {
                memcpy(ids[1], c.provider.data, n);
                answer->provider = nango_str(ids[1], n);
            }
        }

        if (c.status == NANGO_STATUS_VALID) {
            break;
        }
    }

    assert_int_not_equal(rc, -1);
    nango_owned_close(o);
}


static unsigned
ask(unsigned owner, unsigned team)
{
    int                  known;
    char                 question[2];
    unsigned char        key[NANGO_KEY_LEN];
    nango_memo_answer_t  said, found;

    question[0] = (char) ('0' + owner);
    question[1] = "xyz-"[team];

    assert_ok(nango_reader_begin_state(reader, &failure));

    known = nango_memo_find(memo, reader, nango_str(question, 2),
                            owner * 3, &said);
    look(owner, team, &found);

    if (known) {
        assert_int_equal(said.status, found.status);
        assert_memory_equal(said.key, found.key, NANGO_KEY_LEN);
        assert_true(nango_str_eq(said.connection_id, found.connection_id));
        assert_true(nango_str_eq(said.provider, found.provider));

    } else {
        assert_int_equal(nango_owner_key(key, S("prod"), S("end_user_id"),
                            nango_str(&"0123456789"[owner], 1)), 0);
        nango_memo_keep(memo, reader, nango_str(question, 2), owner * 3, key,
                        &found);
    }

    nango_reader_end(reader);

    return known;
}


/* Owners and teams as they come, asked in between, beside the index itself. */

static void
it_says_what_a_lookup_would(void **state)
{
    char      tags[64], id[2] = "a";
    event_t   e;
    unsigned  i, b, known;

    begin(64);

    known = 0;

    for (i = 0; i < 500; i++) {

        memset(&e, 0, sizeof(e));

        b = random_below(8);

        e.op = (b < 3) ? NANGO_OP_CREATION : (b < 6) ? NANGO_OP_OVERRIDE
               : (b < 7) ? NANGO_OP_REFRESH : NANGO_OP_DELETION;
        e.success = (b == 5 || b == 6) ? NANGO_SUCCESS_FALSE
                                       : NANGO_SUCCESS_TRUE;
        e.error = (e.success == NANGO_SUCCESS_FALSE) ? "failed" : NULL;
        e.provider = random_below(4) ? "github" : "slack";
        e.hmac = i + 10;
        id[0] = (char) ('a' + random_below(20));
        e.id = id;
        e.integration = random_below(5) ? NULL : "slack";

        snprintf(tags, sizeof(tags),
                 "{\"end_user_id\":\"%u\",\"team\":\"%c\"}", random_below(6),
                 "xyz"[random_below(3)]);
        e.tags = random_below(3) ? tags : NULL;

        (void) append(store, &e);

        if (random_below(2)) {
            (void) fold(store);
        }

        for (b = random_below(8); b; b--) {
            known += ask(random_below(7), random_below(4));
        }
    }

    /* else it would have tested nothing */

    assert_in_range(known, 500, 5000);

    end();
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(what_was_kept_is_found),
        store_unit(an_answer_may_have_no_strings),
        store_unit(a_change_is_its_owners),
        store_unit(what_changes_nothing_is_no_change),
        store_unit(a_snapshot_is_answered_as_it_is),
        store_unit(what_is_of_another_snapshot_is_not_kept),
        store_unit(a_gap_in_the_changes_forgets_all),
        store_unit(a_store_that_was_opened_again_is_another),
        store_unit(an_unreadable_state_is_not_known),
        store_unit(what_does_not_fit_is_not_kept),
        store_unit(new_ones_take_the_place_of_others),
        store_unit(it_says_what_a_lookup_would)
    };

    return cmocka_run_group_tests_name("memo", tests, NULL, NULL);
}
