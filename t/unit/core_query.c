/*
 * Copyright (C) nginx-nango authors
 *
 * The query of a request for connections.
 */


#include "core_test.h"

#include "nango_query.h"


static unsigned char  buf[4096];


static nango_query_t
parse(nango_str_t args)
{
    nango_query_t  q;

    assert_null(nango_query_parse(&q, args, buf));

    return q;
}


static void
assert_refused(nango_str_t args, const char *start)
{
    const char     *error;
    nango_query_t   q;

    error = nango_query_parse(&q, args, buf);

    assert_non_null(error);
    assert_memory_equal(error, start, strlen(start));
}


static void
nothing_asked_is_the_first_page_of_all(void **state)
{
    size_t         i;
    nango_query_t  q;

    static const nango_str_t  none[] = {
        nango_null_str, nango_string(""), nango_string("&&"),
        nango_string("limit"), nango_string("limits=5"),
        nango_string("xlimit=5"), nango_string("%6cimit=5"),
        nango_string("=5"), nango_string("?limit=5")
    };

    for (i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        q = parse(none[i]);

        assert_int_equal(q.limit, 100);
        assert_int_equal(q.one, 0);
        assert_int_equal(q.before, 0);
        assert_int_equal(q.has_since, 0);
        assert_absent(q.integration);
    }
}


static void
all_of_them_are_read(void **state)
{
    nango_query_t  q;

    q = parse(S("limit=1000&x&cursor=00000000000000fF&since=0&"
                "Integration=a%2Fb+c%2B"));

    assert_int_equal(q.limit, 1000);
    assert_int_equal(q.before, 255);
    assert_int_equal(q.has_since, 1);
    assert_int_equal(q.since, 0);
    assert_str(q.integration, "a/b c+");

    q = parse(S("since=9223372036854775807&cursor=FFFFFFFFFFFFFFFF"));

    assert_true(q.since == INT64_MAX);
    assert_true(q.before == UINT64_MAX);
}


static void
the_first_of_several_counts(void **state)
{
    nango_query_t  q;

    q = parse(S("limit=7&LIMIT=8&limit=x"));
    assert_int_equal(q.limit, 7);

    q = parse(S("provider_config_key=c&integration_id=b"));
    assert_str(q.integration, "b");

    q = parse(S("provider_config_key=c&integration="));
    assert_str(q.integration, "");
}


static void
an_id_is_a_key_or_that_of_nobody(void **state)
{
    size_t         i;
    nango_query_t  q;

    static const unsigned char  key[NANGO_KEY_LEN] = { 0xab, [15] = 0xcd };
    static const unsigned char  nobody[NANGO_KEY_LEN];

    static const nango_str_t  others[] = {
        nango_string("id="), nango_string("id=ab"),
        nango_string("id=ab0000000000000000000000000000c"),
        nango_string("id=ab0000000000000000000000000000cdc"),
        nango_string("id=ab0000000000000000000000000000cx")
    };

    q = parse(S("id=aB0000000000000000000000000000%63d"));
    assert_int_equal(q.one, 1);
    assert_memory_equal(q.key, key, sizeof(key));

    for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        q = parse(others[i]);
        assert_int_equal(q.one, 1);
        assert_memory_equal(q.key, nobody, sizeof(nobody));
    }
}


static void
waiting_needs_something_to_wait_for(void **state)
{
    nango_query_t  q;

    q = parse(S("since=7&wait=55"));
    assert_int_equal(q.since, 7);
    assert_int_equal(q.wait, 55);

    q = parse(S("WAIT=%31&since=0&integration=x&limit=1"));
    assert_int_equal(q.wait, 1);

    q = parse(S("wait=0"));
    assert_int_equal(q.wait, 0);

    q = parse(S("wait=0&id=x"));
    assert_int_equal(q.wait, 0);

    assert_refused(S("wait=1"), "wait needs since");
    assert_refused(S("wait=1&since=1&id=x"), "wait needs since");
    assert_refused(S("since=1&wait=56"), "wait must");
    assert_refused(S("since=1&wait="), "wait must");
    assert_refused(S("since=1&wait=-1"), "wait must");
    assert_refused(S("since=1&wait=1.5"), "wait must");
    assert_refused(S("since=1&wait=18446744073709551617"), "wait must");
    assert_refused(S("since=x&wait=1"), "since ");
}


static void
what_is_wrong_is_refused(void **state)
{
    assert_refused(S("limit="), "limit ");
    assert_refused(S("limit=0"), "limit ");
    assert_refused(S("limit=1001"), "limit ");
    assert_refused(S("limit=1%"), "limit ");
    assert_refused(S("limit=1%4"), "limit ");
    assert_refused(S("limit=1%zz"), "limit ");
    assert_refused(S("limit=+1"), "limit ");
    assert_refused(S("limit=18446744073709551617"), "limit ");
    assert_refused(S("cursor="), "cursor ");
    assert_refused(S("cursor=00000000000000ff0"), "cursor ");
    assert_refused(S("cursor=00000000000000f"), "cursor ");
    assert_refused(S("cursor=00000000000000fg"), "cursor ");
    assert_refused(S("since="), "since ");
    assert_refused(S("since=-1"), "since ");
    assert_refused(S("since=9223372036854775808"), "since ");
}


/* Neither the query nor the room for its values is left. */

static void
it_stays_within_its_memory(void **state)
{
    size_t          i;
    nango_str_t     args;
    nango_query_t   q;
    unsigned char  *room;

    static const char  whole[] =
        "integration=%41%4&id=%&cursor=0123456789abcdef&limit=10&since=1%3";

    for (i = 0; i < sizeof(whole); i++) {
        args = exact(nango_str(whole, i));
        room = malloc(i ? i : 1);
        assert_non_null(room);

        (void) nango_query_parse(&q, args, room);

        free(room);
        exact_free(args);
    }
}


/* Of events. */

static const char *
parse_events(nango_events_query_t *q, const char *args)
{
    return nango_events_query_parse(q, Z(args), buf);
}


static void
what_is_asked_of_events(void **state)
{
    nango_events_query_t  q;

    assert_null(parse_events(&q, ""));
    assert_int_equal(q.has_after, 0);
    assert_int_equal(q.has_log, 0);
    assert_int_equal(q.has_body, 0);
    assert_int_equal(q.limit, 100);
    assert_int_equal(q.wait, 0);
    assert_null(q.type.data);

    assert_null(parse_events(&q, "after=7&limit=1000&wait=55&type=a%2eb&body=0"
                             "&log=000102030405060708090a0b0c0d0eFF&x=y"));
    assert_int_equal(q.has_after, 1);
    assert_int_equal(q.after, 7);
    assert_int_equal(q.limit, 1000);
    assert_int_equal(q.wait, 55);
    assert_str(q.type, "a.b");
    assert_int_equal(q.has_body, 1);
    assert_int_equal(q.body, 0);
    assert_int_equal(q.has_log, 1);
    assert_int_equal(q.log[1], 1);
    assert_int_equal(q.log[15], 0xff);

    assert_null(parse_events(&q, "after=9223372036854775807&log=1"));
    assert_true(q.after == INT64_MAX);
    assert_int_equal(q.has_log, 1);
    assert_int_equal(q.log[0], 0);
}


static void
what_is_wrong_of_events_is_refused(void **state)
{
    size_t                i;
    const char           *error;
    nango_events_query_t  q;

    static const char  *wrong[] = {
        "after=", "after=-1", "after=x", "after=9223372036854775808",
        "limit=0", "limit=1001", "wait=56", "wait=", "body=", "body=x"
    };

    for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        error = parse_events(&q, wrong[i]);
        assert_non_null(error);
        assert_memory_equal(error, wrong[i], strcspn(wrong[i], "="));
    }
}


static void
what_was_seen_last(void **state)
{
    size_t                i;
    nango_str_t           id;
    nango_events_query_t  q;

    static const char  *wrong[] = {
        ":", "x", "1x", "ab:", ":x", "1:2:3", "-1", " 1", "1 ",
        "18446744073709551616"
    };

    assert_null(parse_events(&q, "after=5"));
    assert_null(nango_events_query_last(&q, S("")));
    assert_int_equal(q.after, 5);
    assert_null(nango_events_query_last(&q, S("12")));
    assert_int_equal(q.after, 12);
    assert_int_equal(q.has_log, 0);

    assert_null(nango_events_query_last(&q,
                              S("000102030405060708090a0b0c0d0e0f:13")));
    assert_int_equal(q.after, 13);
    assert_int_equal(q.has_log, 1);
    assert_int_equal(q.log[15], 15);

    /* Another log's, whatever it is. */

    assert_null(nango_events_query_last(&q, S("0:14")));
    assert_int_equal(q.log[15], 0);

    for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        id = exact(Z(wrong[i]));
        assert_null(parse_events(&q, ""));
        assert_non_null(nango_events_query_last(&q, id));
        assert_int_equal(q.has_after, 0);
        exact_free(id);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(nothing_asked_is_the_first_page_of_all),
        cmocka_unit_test(all_of_them_are_read),
        cmocka_unit_test(the_first_of_several_counts),
        cmocka_unit_test(an_id_is_a_key_or_that_of_nobody),
        cmocka_unit_test(waiting_needs_something_to_wait_for),
        cmocka_unit_test(what_is_wrong_is_refused),
        cmocka_unit_test(it_stays_within_its_memory),
        cmocka_unit_test(what_is_asked_of_events),
        cmocka_unit_test(what_is_wrong_of_events_is_refused),
        cmocka_unit_test(what_was_seen_last)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
