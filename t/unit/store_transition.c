/*
 * Copyright (C) nginx-nango authors
 *
 * The table of docs/internals.md, cell by cell.
 */

#include "store_test.h"


#define NOW  (T0 + 5000)


/* What a cell may hold. */

typedef enum {
    EVENT_ONLY,
    IGNORED,
    REPEAT,
    VALID,
    INVALID,
    DELETED
} cell_t;

typedef struct {
    const char           *name;
    nango_op_e            op;
    nango_success_e       success;
    nango_source_e        source;
    cell_t                none;
    cell_t                valid;
    cell_t                invalid;
    cell_t                deleted;
} row_t;


#define NANGO   NANGO_SOURCE_NANGO
#define REPAIR  NANGO_SOURCE_REPAIR
#define EDGE    NANGO_SOURCE_EDGE
#define SAID    NANGO_SUCCESS_TRUE
#define DENIED  NANGO_SUCCESS_FALSE
#define SILENT  NANGO_SUCCESS_NONE


static const row_t  table[] = {

    { "creation", NANGO_OP_CREATION, SAID, NANGO,
      VALID, VALID, VALID, IGNORED },
    { "creation repaired", NANGO_OP_CREATION, SAID, REPAIR,
      VALID, VALID, VALID, VALID },
    { "creation failed", NANGO_OP_CREATION, DENIED, NANGO,
      EVENT_ONLY, EVENT_ONLY, EVENT_ONLY, EVENT_ONLY },
    { "creation, success not said", NANGO_OP_CREATION, SILENT, NANGO,
      EVENT_ONLY, EVENT_ONLY, EVENT_ONLY, EVENT_ONLY },

    { "override", NANGO_OP_OVERRIDE, SAID, NANGO,
      VALID, REPEAT, VALID, IGNORED },
    { "override repaired", NANGO_OP_OVERRIDE, SAID, REPAIR,
      VALID, REPEAT, VALID, VALID },
    { "override failed", NANGO_OP_OVERRIDE, DENIED, NANGO,
      EVENT_ONLY, INVALID, REPEAT, IGNORED },
    { "override failed, repaired", NANGO_OP_OVERRIDE, DENIED, REPAIR,
      EVENT_ONLY, INVALID, REPEAT, IGNORED },
    { "override, success not said", NANGO_OP_OVERRIDE, SILENT, NANGO,
      EVENT_ONLY, EVENT_ONLY, EVENT_ONLY, EVENT_ONLY },

    { "refresh", NANGO_OP_REFRESH, SAID, NANGO,
      EVENT_ONLY, REPEAT, VALID, IGNORED },
    { "refresh repaired", NANGO_OP_REFRESH, SAID, REPAIR,
      EVENT_ONLY, REPEAT, VALID, VALID },
    { "refresh failed", NANGO_OP_REFRESH, DENIED, NANGO,
      EVENT_ONLY, INVALID, REPEAT, IGNORED },
    { "refresh, success not said", NANGO_OP_REFRESH, SILENT, NANGO,
      EVENT_ONLY, EVENT_ONLY, EVENT_ONLY, EVENT_ONLY },

    { "deletion", NANGO_OP_DELETION, SAID, NANGO,
      DELETED, DELETED, DELETED, REPEAT },
    { "deletion, success not said", NANGO_OP_DELETION, SILENT, NANGO,
      DELETED, DELETED, DELETED, REPEAT },
    { "deletion by the edge", NANGO_OP_DELETION, SAID, EDGE,
      DELETED, DELETED, DELETED, REPEAT },
    { "deletion failed", NANGO_OP_DELETION, DENIED, NANGO,
      EVENT_ONLY, EVENT_ONLY, EVENT_ONLY, EVENT_ONLY },

    { "no operation", NANGO_OP_NONE, SAID, NANGO,
      EVENT_ONLY, EVENT_ONLY, EVENT_ONLY, EVENT_ONLY },
    { "an operation not known", NANGO_OP_OTHER, SAID, NANGO,
      EVENT_ONLY, EVENT_ONLY, EVENT_ONLY, EVENT_ONLY },
    { "an operation of later", (nango_op_e) 99, SAID, REPAIR,
      EVENT_ONLY, EVENT_ONLY, EVENT_ONLY, EVENT_ONLY },
};


static nango_connection_t
connection(nango_status_e status)
{
    nango_connection_t  c;

    memset(&c, 0, sizeof(c));

    c.key[0] = 1;
    c.status = status;

    if (status == NANGO_STATUS_NONE) {
        return c;
    }

    c.created_sequence = 10;
    c.updated_sequence = 20;
    c.created_at = T0 + 10;
    c.updated_at = T0 + 20;
    c.status_since = T0 + 20;
    c.checked_at = T0 + 21;
    c.repeats = 3;
    c.creation_hmac[0] = 9;
    c.environment = S("prod");
    c.integration = S("github");
    c.connection_id = S("one");
    c.provider = S("github");
    c.tags[0].name = S("end_user_id");
    c.tags[0].value = S("42");
    c.ntags = 1;

    if (status == NANGO_STATUS_INVALID) {
        c.error_type = S("old");
        c.error_text = S("of old");
    }

    return c;
}


static nango_record_t
record(nango_op_e op, nango_success_e success, nango_source_e source)
{
    nango_record_t  rec;

    memset(&rec, 0, sizeof(rec));

    rec.source = source;
    rec.type = NANGO_TYPE_AUTH;
    rec.operation = op;
    rec.success = success;
    rec.received_at = NOW;
    rec.hmac[0] = 77;
    rec.environment = S("prod");
    rec.integration = S("github");
    rec.connection_id = S("one");

    return rec;
}


static const nango_event_t  nothing;


static void
assert_cell(const row_t *row, nango_status_e status, cell_t cell)
{
    nango_record_t      rec;
    nango_effect_e      effect, expected;
    nango_status_e      then;
    nango_connection_t  before, copy, after;

    static const nango_effect_e  effects[] = {
        NANGO_EFFECT_NONE, NANGO_EFFECT_IGNORED, NANGO_EFFECT_REPEAT,
        NANGO_EFFECT_CHANGED, NANGO_EFFECT_CHANGED, NANGO_EFFECT_CHANGED
    };

    before = connection(status);
    copy = before;
    rec = record(row->op, row->success, row->source);

    effect = nango_transition(&before, &rec, &nothing, 100, &after);

    expected = effects[cell];
    then = cell == VALID ? NANGO_STATUS_VALID
           : cell == INVALID ? NANGO_STATUS_INVALID
           : cell == DELETED ? NANGO_STATUS_DELETED : status;

    if (effect != expected || after.status != then) {
        print_error("%s on status %d: effect %d status %d, expected %d %d\n",
                    row->name, status, effect, after.status, expected, then);
        fail();
    }

    assert_memory_equal(&before, &copy, sizeof(before));

    if (effect == NANGO_EFFECT_NONE || effect == NANGO_EFFECT_IGNORED) {
        return;
    }

    assert_true(after.checked_at == NOW);
    assert_memory_equal(after.key, before.key, NANGO_KEY_LEN);

    if (effect == NANGO_EFFECT_REPEAT) {
        assert_sequence(after.repeats, 4);
        assert_sequence(after.updated_sequence, 20);
        assert_true(after.status_since == T0 + 20);
        return;
    }

    assert_sequence(after.updated_sequence, 100);
    assert_true(after.updated_at == NOW);
    assert_str(after.connection_id, "one");
    assert_str(after.integration, "github");
    assert_str(after.environment, "prod");

    if (then != status) {
        assert_true(after.status_since == NOW);
        assert_sequence(after.repeats, 0);

    } else {
        assert_true(after.status_since == T0 + 20);
    }

    if (then != NANGO_STATUS_INVALID) {
        assert_absent(after.error_type);
        assert_absent(after.error_text);
    }
}


static void
every_cell_of_the_table(void **state)
{
    size_t  i;

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        assert_cell(&table[i], NANGO_STATUS_NONE, table[i].none);
        assert_cell(&table[i], NANGO_STATUS_VALID, table[i].valid);
        assert_cell(&table[i], NANGO_STATUS_INVALID, table[i].invalid);
        assert_cell(&table[i], NANGO_STATUS_DELETED, table[i].deleted);
    }
}


static void
other_types_change_nothing(void **state)
{
    int                 type, status;
    nango_record_t      rec;
    nango_connection_t  before, after;

    for (type = 0; type < 7; type++) {

        if (type == NANGO_TYPE_AUTH) {
            continue;
        }

        for (status = 0; status < 4; status++) {
            before = connection(status);
            rec = record(NANGO_OP_CREATION, SAID, REPAIR);
            rec.type = type;

            assert_int_equal(nango_transition(&before, &rec, &nothing, 100,
                                              &after),
                             NANGO_EFFECT_NONE);
            assert_memory_equal(&after, &before, sizeof(after));
        }
    }
}


static void
ids_that_are_none_change_nothing(void **state)
{
    size_t                i;
    nango_record_t        rec;
    nango_connection_t    before, after;
    static unsigned char  big[NANGO_ID_MAX + 1];

    const nango_str_t  bad[] = {
        nango_null_str, S(""), S("a\nb"), S("a\x7f"), S("a\0b"), S("\xff"),
        nango_str(big, NANGO_ID_MAX + 1)
    };

    memset(big, 'a', sizeof(big));
    before = connection(NANGO_STATUS_NONE);

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        rec = record(NANGO_OP_CREATION, SAID, NANGO);
        rec.connection_id = bad[i];
        assert_int_equal(nango_transition(&before, &rec, &nothing, 1, &after),
                         NANGO_EFFECT_NONE);

        rec = record(NANGO_OP_CREATION, SAID, NANGO);
        rec.integration = bad[i];
        assert_int_equal(nango_transition(&before, &rec, &nothing, 1, &after),
                         NANGO_EFFECT_NONE);
    }

    rec = record(NANGO_OP_CREATION, SAID, NANGO);
    rec.connection_id = nango_str(big, NANGO_ID_MAX);
    assert_int_equal(nango_transition(&before, &rec, &nothing, 1, &after),
                     NANGO_EFFECT_CHANGED);
}


static void
a_new_connection_is_what_the_event_says(void **state)
{
    nango_tag_t         tags[2];
    nango_event_t       ev;
    nango_record_t      rec;
    nango_connection_t  before, after;

    before = connection(NANGO_STATUS_NONE);
    rec = record(NANGO_OP_CREATION, SAID, NANGO);

    memset(&ev, 0, sizeof(ev));
    ev.provider = S("github-app");
    tags[0].name = S("end_user_id");
    tags[0].value = S("1");
    tags[1].name = S("organization_id");
    tags[1].value = S("2");
    ev.tags = tags;
    ev.ntags = 2;

    /* an error besides a success says nothing */

    ev.error_type = S("odd");

    assert_int_equal(nango_transition(&before, &rec, &ev, 100, &after),
                     NANGO_EFFECT_CHANGED);

    assert_sequence(after.created_sequence, 100);
    assert_sequence(after.updated_sequence, 100);
    assert_true(after.created_at == NOW);
    assert_true(after.status_since == NOW);
    assert_memory_equal(after.creation_hmac, rec.hmac, NANGO_HMAC_LEN);
    assert_str(after.provider, "github-app");
    assert_absent(after.error_type);
    assert_int_equal(after.ntags, 2);
    assert_str(nango_connection_tag(&after, S("organization_id")), "2");
    assert_absent(nango_connection_tag(&after, S("organization")));
}


static void
an_override_of_an_unknown_one_creates_it(void **state)
{
    nango_record_t              rec;
    nango_connection_t          before, after;
    static const unsigned char  none[NANGO_HMAC_LEN];

    before = connection(NANGO_STATUS_NONE);
    rec = record(NANGO_OP_OVERRIDE, SAID, NANGO);

    nango_transition(&before, &rec, &nothing, 100, &after);
    assert_sequence(after.created_sequence, 100);

    /* it was no creation: one with these bytes would be the first */

    assert_memory_equal(after.creation_hmac, none, NANGO_HMAC_LEN);
}


static void
a_replayed_creation_is_ignored(void **state)
{
    nango_record_t      rec;
    nango_connection_t  before, after;

    rec = record(NANGO_OP_CREATION, SAID, NANGO);

    before = connection(NANGO_STATUS_INVALID);
    memcpy(before.creation_hmac, rec.hmac, NANGO_HMAC_LEN);

    assert_int_equal(nango_transition(&before, &rec, &nothing, 100, &after),
                     NANGO_EFFECT_IGNORED);
    assert_int_equal(after.status, NANGO_STATUS_INVALID);

    before = connection(NANGO_STATUS_VALID);
    memcpy(before.creation_hmac, rec.hmac, NANGO_HMAC_LEN);

    assert_int_equal(nango_transition(&before, &rec, &nothing, 100, &after),
                     NANGO_EFFECT_IGNORED);
}


static void
a_creation_without_hmac_is_no_replay(void **state)
{
    nango_record_t      rec;
    nango_connection_t  before, after;

    rec = record(NANGO_OP_CREATION, SAID, REPAIR);
    memset(rec.hmac, 0, sizeof(rec.hmac));

    before = connection(NANGO_STATUS_INVALID);
    memset(before.creation_hmac, 0, sizeof(before.creation_hmac));

    assert_int_equal(nango_transition(&before, &rec, &nothing, 100, &after),
                     NANGO_EFFECT_CHANGED);
}


static void
a_repair_lifts_a_tombstone_by_its_own_creation(void **state)
{
    nango_record_t      rec;
    nango_connection_t  before, after;

    rec = record(NANGO_OP_CREATION, SAID, REPAIR);
    before = connection(NANGO_STATUS_DELETED);
    memcpy(before.creation_hmac, rec.hmac, NANGO_HMAC_LEN);

    assert_int_equal(nango_transition(&before, &rec, &nothing, 100, &after),
                     NANGO_EFFECT_CHANGED);
    assert_int_equal(after.status, NANGO_STATUS_VALID);
    assert_sequence(after.created_sequence, 10);
}


static void
a_tombstone_of_an_unknown_one_is_lifted_as_new(void **state)
{
    nango_record_t      rec;
    nango_connection_t  before, tombstone, after;

    before = connection(NANGO_STATUS_NONE);
    rec = record(NANGO_OP_DELETION, SAID, NANGO);
    nango_transition(&before, &rec, &nothing, 100, &tombstone);
    assert_sequence(tombstone.created_sequence, 0);
    assert_sequence(tombstone.updated_sequence, 100);

    rec = record(NANGO_OP_OVERRIDE, SAID, REPAIR);
    nango_transition(&tombstone, &rec, &nothing, 200, &after);
    assert_int_equal(after.status, NANGO_STATUS_VALID);
    assert_sequence(after.created_sequence, 200);
    assert_true(after.created_at == NOW);
}


static void
what_was_created_stays_so(void **state)
{
    nango_record_t      rec;
    nango_connection_t  before, after;

    before = connection(NANGO_STATUS_VALID);
    rec = record(NANGO_OP_CREATION, SAID, NANGO);

    nango_transition(&before, &rec, &nothing, 100, &after);
    assert_sequence(after.created_sequence, 10);
    assert_true(after.created_at == T0 + 10);
    assert_memory_equal(after.creation_hmac, rec.hmac, NANGO_HMAC_LEN);

    before = after;
    rec = record(NANGO_OP_DELETION, SAID, NANGO);
    nango_transition(&before, &rec, &nothing, 101, &after);
    assert_sequence(after.created_sequence, 10);
    assert_str(nango_connection_tag(&after, S("end_user_id")), "42");
}


static void
tags_of_an_event_replace_the_stored_ones(void **state)
{
    nango_tag_t         tag;
    nango_event_t       ev;
    nango_record_t      rec;
    nango_connection_t  before, after;

    memset(&ev, 0, sizeof(ev));
    tag.name = S("organization_id");
    tag.value = S("acme");
    ev.tags = &tag;
    ev.ntags = 1;

    before = connection(NANGO_STATUS_INVALID);
    rec = record(NANGO_OP_OVERRIDE, SAID, NANGO);

    nango_transition(&before, &rec, &ev, 100, &after);
    assert_int_equal(after.ntags, 1);
    assert_str(nango_connection_tag(&after, S("organization_id")), "acme");
    assert_absent(nango_connection_tag(&after, S("end_user_id")));
}


static void
no_tags_replace_nothing(void **state)
{
    nango_record_t      rec;
    nango_connection_t  before, after;

    before = connection(NANGO_STATUS_INVALID);
    rec = record(NANGO_OP_OVERRIDE, SAID, NANGO);

    nango_transition(&before, &rec, &nothing, 100, &after);
    assert_int_equal(after.ntags, 1);
    assert_str(nango_connection_tag(&after, S("end_user_id")), "42");
    assert_str(after.provider, "github");
}


static void
a_repeat_with_the_same_tags_changes_nothing(void **state)
{
    nango_tag_t         tags[2];
    nango_event_t       ev;
    nango_record_t      rec;
    nango_connection_t  before, after;

    before = connection(NANGO_STATUS_VALID);
    before.tags[1].name = S("organization_id");
    before.tags[1].value = S("acme");
    before.ntags = 2;

    /* in whichever order */

    memset(&ev, 0, sizeof(ev));
    tags[0] = before.tags[1];
    tags[1] = before.tags[0];
    ev.tags = tags;
    ev.ntags = 2;
    ev.provider = S("github");

    rec = record(NANGO_OP_OVERRIDE, SAID, NANGO);
    assert_int_equal(nango_transition(&before, &rec, &ev, 100, &after),
                     NANGO_EFFECT_REPEAT);
}


static void
a_repeat_with_other_tags_is_a_change(void **state)
{
    nango_tag_t         tags[2];
    nango_event_t       ev;
    nango_record_t      rec;
    nango_connection_t  before, after;

    before = connection(NANGO_STATUS_VALID);
    rec = record(NANGO_OP_OVERRIDE, SAID, NANGO);

    memset(&ev, 0, sizeof(ev));
    tags[0].name = S("end_user_id");
    tags[0].value = S("43");
    ev.tags = tags;
    ev.ntags = 1;

    assert_int_equal(nango_transition(&before, &rec, &ev, 100, &after),
                     NANGO_EFFECT_CHANGED);
    assert_sequence(after.repeats, 4);
    assert_sequence(after.updated_sequence, 100);
    assert_true(after.status_since == T0 + 20);

    /* more of them, and the same name with nothing but another case */

    tags[0].value = S("42");
    tags[1].name = S("x");
    tags[1].value = S("y");
    ev.ntags = 2;

    assert_int_equal(nango_transition(&before, &rec, &ev, 100, &after),
                     NANGO_EFFECT_CHANGED);
    assert_int_equal(after.ntags, 2);
}


static void
an_error_is_kept_until_another_comes(void **state)
{
    nango_event_t       ev;
    nango_record_t      rec;
    nango_connection_t  before, after;

    before = connection(NANGO_STATUS_INVALID);
    rec = record(NANGO_OP_REFRESH, DENIED, NANGO);
    memset(&ev, 0, sizeof(ev));

    assert_int_equal(nango_transition(&before, &rec, &ev, 100, &after),
                     NANGO_EFFECT_REPEAT);
    assert_str(after.error_type, "old");
    assert_str(after.error_text, "of old");

    ev.error_type = S("old");
    ev.error_text = S("of old");
    assert_int_equal(nango_transition(&before, &rec, &ev, 100, &after),
                     NANGO_EFFECT_REPEAT);

    ev.error_text = S("of late");
    assert_int_equal(nango_transition(&before, &rec, &ev, 100, &after),
                     NANGO_EFFECT_CHANGED);
    assert_str(after.error_text, "of late");
    assert_true(after.status_since == T0 + 20);
    assert_sequence(after.repeats, 4);
}


static void
a_failure_brings_its_error(void **state)
{
    nango_event_t       ev;
    nango_record_t      rec;
    nango_connection_t  before, after;

    before = connection(NANGO_STATUS_VALID);
    rec = record(NANGO_OP_REFRESH, DENIED, NANGO);

    memset(&ev, 0, sizeof(ev));
    ev.error_type = S("invalid_grant");
    ev.error_text = S("revoked");

    nango_transition(&before, &rec, &ev, 100, &after);
    assert_int_equal(after.status, NANGO_STATUS_INVALID);
    assert_str(after.error_type, "invalid_grant");
    assert_str(after.error_text, "revoked");

    before = after;
    rec = record(NANGO_OP_REFRESH, SAID, NANGO);
    nango_transition(&before, &rec, &nothing, 101, &after);
    assert_int_equal(after.status, NANGO_STATUS_VALID);
    assert_absent(after.error_type);
    assert_absent(after.error_text);
}


#define unit(f)  cmocka_unit_test(f)


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        unit(every_cell_of_the_table),
        unit(other_types_change_nothing),
        unit(ids_that_are_none_change_nothing),
        unit(a_new_connection_is_what_the_event_says),
        unit(an_override_of_an_unknown_one_creates_it),
        unit(a_replayed_creation_is_ignored),
        unit(a_creation_without_hmac_is_no_replay),
        unit(a_repair_lifts_a_tombstone_by_its_own_creation),
        unit(a_tombstone_of_an_unknown_one_is_lifted_as_new),
        unit(what_was_created_stays_so),
        unit(tags_of_an_event_replace_the_stored_ones),
        unit(no_tags_replace_nothing),
        unit(a_repeat_with_the_same_tags_changes_nothing),
        unit(a_repeat_with_other_tags_is_a_change),
        unit(an_error_is_kept_until_another_comes),
        unit(a_failure_brings_its_error)
    };

    return cmocka_run_group_tests_name("transition", tests, NULL, NULL);
}
