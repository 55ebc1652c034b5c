/*
 * Copyright (C) nginx-nango authors
 *
 * One connection: how a request names it, its path at Nango's API, what the
 * API says of it, and the event that is made of that.
 */


#include "core_test.h"

#include "nango_api.h"
#include "nango_event.h"
#include "nango_json.h"


#define COUNT(a)  (sizeof(a) / sizeof(a[0]))

#define HEX   "000102030405060708090a0b0c0d0eff"
#define ANY   (NANGO_TARGET_ID|NANGO_TARGET_INTEGRATION|NANGO_TARGET_CONNECTION)


static unsigned char   buf[4096];
static nango_target_t  target;


static const char *
parse(nango_str_t body, unsigned accept)
{
    int             rc;
    nango_str_t     copy;
    const char     *error;
    unsigned char  *room;

    /* A copy of both that ends where it may. */

    copy = exact(body);
    room = malloc(body.len ? body.len : 1);
    assert_non_null(room);

    error = "stale";
    rc = nango_target_parse(&target, copy, accept, room, &error);
    assert_true(rc == 0 || rc == -1);

    memcpy(buf, room, body.len);

    if (target.integration.data) {
        target.integration.data = buf + (target.integration.data - room);
    }

    if (target.connection_id.data) {
        target.connection_id.data = buf + (target.connection_id.data - room);
    }

    free(room);
    exact_free(copy);

    return rc == 0 ? NULL : error;
}


static void
a_target_is_named_by_its_id(void **state)
{
    static const unsigned char  key[NANGO_KEY_LEN] = {
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255
    };

    assert_null(parse(S("{\"id\":\"" HEX "\"}"), ANY));
    assert_int_equal(target.by, NANGO_TARGET_ID);
    assert_memory_equal(target.id, key, NANGO_KEY_LEN);
    assert_absent(target.integration);
    assert_absent(target.connection_id);

    assert_null(parse(S(" {\n\"\\u0069d\" : \"0001\\u00302030405060708090A0B"
                        "0C0D0EFF\"}\t"), ANY));
    assert_memory_equal(target.id, key, NANGO_KEY_LEN);
}


static void
another_form_of_id_is_nobodys(void **state)
{
    size_t  i;

    static const unsigned char  none[NANGO_KEY_LEN];

    static const nango_str_t  bodies[] = {
        nango_string("{\"id\":\"\"}"), nango_string("{\"id\":\"c-1\"}"),
        nango_string("{\"id\":\"" HEX "0\"}"),
        nango_string("{\"id\":\" " HEX "\"}"),
        nango_string("{\"id\":\"0001020304050607 8090a0b0c0d0eff\"}"),
        nango_string("{\"id\":\"000102030405060708090a0b0c0d0e\"}"),
        nango_string("{\"id\":\"000102030405060708090a0b0c0d0efg\"}")
    };

    for (i = 0; i < COUNT(bodies); i++) {
        assert_null(parse(bodies[i], ANY));
        assert_int_equal(target.by, NANGO_TARGET_ID);
        assert_memory_equal(target.id, none, NANGO_KEY_LEN);
    }
}


static void
a_target_is_named_by_its_integration(void **state)
{
    assert_null(parse(S("{\"integration\":\"a b:c\"}"), ANY));
    assert_int_equal(target.by, NANGO_TARGET_INTEGRATION);
    assert_str(target.integration, "a b:c");
    assert_absent(target.connection_id);

    assert_null(parse(S("{\"integration_id\":\"github\"}"), ANY));
    assert_str(target.integration, "github");

    assert_null(parse(S("{\"provider_config_key\":\"github\"}"), ANY));
    assert_str(target.integration, "github");
}


static void
a_target_is_named_as_nango_names_it(void **state)
{
    assert_null(parse(S("{\"connection_id\":\"a\\\"\\/\\u00fc\","
                        "\"integration\":\"github\"}"), ANY));
    assert_int_equal(target.by, NANGO_TARGET_CONNECTION);
    assert_str(target.integration, "github");
    assert_str(target.connection_id, "a\"/\xc3\xbc");
}


static void
a_target_is_what_is_accepted(void **state)
{
    static const nango_str_t  bodies[] = {
        nango_string("{\"id\":\"x\"}"),
        nango_string("{\"integration\":\"x\"}"),
        nango_string("{\"integration\":\"x\",\"connection_id\":\"x\"}")
    };

    size_t    i;
    unsigned  accept;

    for (i = 0; i < COUNT(bodies); i++) {
        for (accept = 0; accept <= ANY; accept++) {

            if (accept & (1u << i)) {
                assert_null(parse(bodies[i], accept));
                assert_int_equal(target.by, 1u << i);

            } else {
                assert_non_null(parse(bodies[i], accept));
            }
        }
    }
}


static void
a_target_that_is_none_is_refused(void **state)
{
    size_t  i;

    static const nango_str_t  bodies[] = {
        nango_null_str, nango_string(""), nango_string("{}"),
        nango_string("[]"), nango_string("null"), nango_string("\"id\""),
        nango_string("{\"id\":1}"), nango_string("{\"id\":null}"),
        nango_string("{\"id\":\"a"), nango_string("{\"id\":\"x\"} x"),
        nango_string("{\"id\":\"\\ud800\"}"),
        nango_string("{\"id\":\"x\",\"integration\":\"x\"}"),
        nango_string("{\"id\":\"x\",\"connection_id\":\"x\"}"),
        nango_string("{\"id\":\"x\",\"other\":\"x\"}"),
        nango_string("{\"Id\":\"x\"}"),
        nango_string("{\"integration\":\"\"}"),
        nango_string("{\"integration\":\"a/b\"}"),
        nango_string("{\"integration\":\"\xc3\xbc\"}"),
        nango_string("{\"integration\":[\"x\"]}"),
        nango_string("{\"integration\":\"x\",\"integration_id\":\"x\"}"),
        nango_string("{\"connection_id\":\"x\"}"),
        nango_string("{\"integration\":\"x\",\"connection_id\":\"\"}"),
        nango_string("{\"integration\":\"x\",\"connection_id\":1}"),
        nango_string("{\"integration\":\"x\",\"connection_id\":\"a\\u0000\"}"),
        nango_string("{\"integration\":\"x\",\"connection_id\":\"a\\n\"}"),
        nango_string("{\"integration\":\"x\",\"connection_id\":\"a\xff\"}")
    };

    for (i = 0; i < COUNT(bodies); i++) {
        assert_non_null(parse(bodies[i], ANY));
        assert_string_not_equal(parse(bodies[i], ANY), "stale");
    }
}


/* Of n times unit in the given member. */

static const char *
parse_long(const char *start, const char *unit, int n)
{
    int    len;
    char  *body;

    static char  text[8192];

    body = text;
    len = sprintf(body, "%s", start);

    while (n-- > 0) {
        len += sprintf(body + len, "%s", unit);
    }

    len += sprintf(body + len, "\"}");

    return parse(nango_str(body, len), ANY);
}


static void
a_targets_ids_have_a_limit(void **state)
{
    static const char  id[] = "{\"integration\":\"x\",\"connection_id\":\"";
    static const char  integration[] = "{\"integration\":\"";

    assert_null(parse_long(id, "x", 255));
    assert_int_equal(target.connection_id.len, 255);
    assert_non_null(parse_long(id, "x", 256));

    /* characters as Nango counts them */

    assert_null(parse_long(id, "\xe2\x82\xac", 255));
    assert_int_equal(target.connection_id.len, 765);
    assert_non_null(parse_long(id, "\xe2\x82\xac", 256));
    assert_null(parse_long(id, "\xf0\x9f\x98\x80", 127));
    assert_non_null(parse_long(id, "\xf0\x9f\x98\x80", 128));
    assert_null(parse_long(id, "\\u20ac", 255));

    assert_null(parse_long(integration, "x", 255));
    assert_non_null(parse_long(integration, "x", 256));
}


static void
assert_path(nango_str_t id, nango_str_t integration, const char *expected)
{
    char  *path;

    path = nango_connection_path(id, integration);
    assert_non_null(path);
    assert_string_equal(path, expected);
    free(path);
}


static void
a_path_is_one_segment(void **state)
{
    int            i;
    char          *path;
    unsigned char  all[256];

    assert_path(S("c-1"), S("github"),
                "/connections/c-1?provider_config_key=github");
    assert_path(S("../a?b#c%2e"), S("a b&c=d"),
                "/connections/..%2Fa%3Fb%23c%252e"
                "?provider_config_key=a%20b%26c%3Dd");
    assert_path(S("\xc3\xbc~_.-"), S(""),
                "/connections/%C3%BC~_.-?provider_config_key=");

    for (i = 0; i < 256; i++) {
        all[i] = (unsigned char) i;
    }

    path = nango_connection_path(nango_str(all, 256), nango_str(all, 256));
    assert_non_null(path);
    assert_int_equal(strspn(path + 13, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                       "abcdefghijklmnopqrstuvwxyz%-._~"),
                     66 + 190 * 3);
    assert_int_equal(strlen(path), 13 + 21 + 2 * (66 + 190 * 3));
    free(path);
}


static void
ids_that_are_paths_are_not_usable(void **state)
{
    assert_false(nango_connection_id_usable(S("")));
    assert_false(nango_connection_id_usable(S(".")));
    assert_false(nango_connection_id_usable(S("..")));
    assert_true(nango_connection_id_usable(S("...")));
    assert_true(nango_connection_id_usable(S(".a")));
    assert_true(nango_connection_id_usable(S("/")));
}


static nango_event_t
connection(nango_str_t object)
{
    nango_str_t    copy;
    nango_event_t  ev;

    copy = exact(object);
    assert_int_equal(nango_event_parse_connection(&ev, copy), 0);
    exact_free(copy);

    assert_int_equal(ev.type, NANGO_TYPE_AUTH);
    assert_int_equal(ev.operation, NANGO_OP_CREATION);

    return ev;
}


static void
assert_tag(const nango_event_t *ev, size_t i, const char *name,
    const char *value)
{
    assert_true(i < ev->ntags);
    assert_true(nango_str_eq(ev->tags[i].name, Z(name)));
    assert_true(nango_str_eq(ev->tags[i].value, Z(value)));
}


static void
the_api_says_how_a_connection_is(void **state)
{
    capture_t      c;
    nango_event_t  ev;

    c = capture("api-connection-get.txt");
    ev = connection(c.body);

    assert_str(ev.integration, "test-apikey");
    assert_str(ev.connection_id, "d76189cb-fd57-4e26-9832-36fcfc1d1e3b");
    assert_str(ev.provider, "airtable-pat");
    assert_int_equal(ev.success, NANGO_SUCCESS_TRUE);

    assert_int_equal(ev.ntags, 6);
    assert_tag(&ev, 0, "plan", "pro");
    assert_tag(&ev, 1, "end_user_id", "user-42");
    assert_tag(&ev, 2, "end_user_email", "ann@example.com");
    assert_tag(&ev, 3, "end_user_display_name", "Ann \xc3\x9cn\xc3\xaf" "code");
    assert_tag(&ev, 4, "organization_id", "org-7");
    assert_tag(&ev, 5, "organization_display_name", "Org Seven");

    nango_event_free(&ev);
    free(c.memory);
}


static void
its_tags_go_before_its_end_user(void **state)
{
    nango_event_t  ev;

    ev = connection(S("{\"tags\":{\"End_User_Id\":\"42\"},"
                      "\"end_user\":{\"id\":\"43\"}}"));
    assert_int_equal(ev.ntags, 1);
    assert_tag(&ev, 0, "end_user_id", "42");
    nango_event_free(&ev);

    /* its own tags do not say who it is */

    ev = connection(S("{\"end_user\":{\"id\":\"43\",\"tags\":"
                      "{\"end_user_id\":\"42\",\"a\":\"b\"}}}"));
    assert_int_equal(ev.ntags, 2);
    assert_tag(&ev, 0, "end_user_id", "43");
    assert_tag(&ev, 1, "a", "b");
    nango_event_free(&ev);
}


static void
a_connection_may_need_its_user_again(void **state)
{
    size_t         i;
    nango_event_t  ev;

    static const struct {
        nango_str_t      object;
        nango_success_e  success;
    } cases[] = {
        { nango_string("{\"errors\":[]}"), NANGO_SUCCESS_TRUE },
        { nango_string("{\"errors\":[{\"type\":\"sync\"}]}"),
          NANGO_SUCCESS_TRUE },
        { nango_string("{\"errors\":[{\"type\":\"auth\"}]}"),
          NANGO_SUCCESS_FALSE },
        { nango_string("{\"errors\":[{\"type\":\"sync\"},1,"
                       "{\"log_id\":\"x\",\"type\":\"auth\"}]}"),
          NANGO_SUCCESS_FALSE },
        { nango_string("{\"errors\":{\"a\":{\"type\":\"auth\"}}}"),
          NANGO_SUCCESS_TRUE },
        { nango_string("{\"errors\":\"auth\"}"), NANGO_SUCCESS_TRUE },
        { nango_string("{\"errors\":null}"), NANGO_SUCCESS_TRUE }
    };

    for (i = 0; i < COUNT(cases); i++) {
        ev = connection(cases[i].object);
        assert_int_equal(ev.success, cases[i].success);
        nango_event_free(&ev);
    }
}


static void
what_is_no_connection_has_no_ids(void **state)
{
    size_t         i;
    nango_event_t  ev;

    static const nango_str_t  objects[] = {
        nango_null_str, nango_string("null"), nango_string("[]"),
        nango_string("{"), nango_string("{}"),
        nango_string("{\"connectionId\":\"a\",\"providerConfigKey\":\"b\"}"),
        nango_string("{\"connection_id\":1,\"provider_config_key\":[]}"),
        nango_string("{\"connection_id\":\"\",\"provider_config_key\":\"\"}"),
        nango_string("{\"tags\":[\"a\"],\"end_user\":\"b\"}"),
        nango_string("{\"end_user\":{\"organization\":[1],\"id\":null}}")
    };

    for (i = 0; i < COUNT(objects); i++) {
        ev = connection(objects[i]);
        assert_absent(ev.integration);
        assert_absent(ev.connection_id);
        assert_int_equal(ev.ntags, 0);
        nango_event_free(&ev);
    }
}


static void
short_end_users_fit(void **state)
{
    nango_event_t  ev;

    ev = connection(S("{\"end_user\":{\"id\":\"a\",\"email\":\"b\","
                      "\"display_name\":\"c\",\"tags\":{\"d\":\"e\"},"
                      "\"organization\":{\"id\":\"f\",\"display_name\":\"g\"}"
                      "}}"));
    assert_int_equal(ev.ntags, 6);
    assert_tag(&ev, 5, "organization_display_name", "g");
    nango_event_free(&ev);
}


static void
assert_event(const nango_event_t *ev, const char *expected)
{
    char    *body;
    size_t   len;

    body = nango_event_body(ev, S("prod"), &len);
    assert_non_null(body);
    assert_int_equal(len, strlen(expected));
    assert_memory_equal(body, expected, len);
    free(body);
}


static void
an_event_is_written_as_nango_would(void **state)
{
    nango_tag_t    tags[2];
    nango_event_t  ev;

    memset(&ev, 0, sizeof(ev));

    ev.type = NANGO_TYPE_AUTH;
    ev.operation = NANGO_OP_DELETION;
    ev.integration = S("github");
    ev.connection_id = S("c\"1");

    assert_event(&ev, "{\"connectionId\":\"c\\\"1\",\"environment\":\"prod\","
                      "\"from\":\"nango-edge\",\"operation\":\"deletion\","
                      "\"providerConfigKey\":\"github\",\"tags\":{},"
                      "\"type\":\"auth\"}");

    tags[0].name = S("end_user_id");
    tags[0].value = S("\xc3\xbc");
    tags[1].name = S("plan");
    tags[1].value = S("pro");

    ev.operation = NANGO_OP_REFRESH;
    ev.success = NANGO_SUCCESS_FALSE;
    ev.provider = S("gh");
    ev.tags = tags;
    ev.ntags = 2;
    ev.error_type = S("t");

    assert_event(&ev, "{\"connectionId\":\"c\\\"1\",\"environment\":\"prod\","
                      "\"error\":{\"description\":\"\",\"type\":\"t\"},"
                      "\"from\":\"nango-edge\",\"operation\":\"refresh\","
                      "\"provider\":\"gh\",\"providerConfigKey\":\"github\","
                      "\"success\":false,"
                      "\"tags\":{\"end_user_id\":\"\xc3\xbc\","
                      "\"plan\":\"pro\"},\"type\":\"auth\"}");
}


static void
an_event_is_read_as_it_was_written(void **state)
{
    char           *body;
    size_t          len;
    nango_tag_t     tag;
    nango_event_t   ev, again;

    memset(&ev, 0, sizeof(ev));

    tag.name = S("end_user_id");
    tag.value = S("</script>\\\"");

    ev.type = NANGO_TYPE_AUTH;
    ev.operation = NANGO_OP_OVERRIDE;
    ev.success = NANGO_SUCCESS_FALSE;
    ev.integration = S("a b:c");
    ev.connection_id = S("{}\"'\\|/");
    ev.provider = S("p");
    ev.tags = &tag;
    ev.ntags = 1;
    ev.error_type = S("x");
    ev.error_text = S("a\nb\x7f");

    body = nango_event_body(&ev, S("prod"), &len);
    assert_non_null(body);
    assert_int_equal(nango_event_parse(&again, nango_str(body, len)), 0);
    free(body);

    assert_int_equal(again.type, ev.type);
    assert_int_equal(again.operation, ev.operation);
    assert_int_equal(again.success, ev.success);
    assert_true(nango_str_eq(again.integration, ev.integration));
    assert_true(nango_str_eq(again.connection_id, ev.connection_id));
    assert_true(nango_str_eq(again.provider, ev.provider));
    assert_true(nango_str_eq(again.error_type, ev.error_type));
    assert_true(nango_str_eq(again.error_text, ev.error_text));
    assert_int_equal(again.ntags, 1);
    assert_tag(&again, 0, "end_user_id", "</script>\\\"");

    nango_event_free(&again);
}


static void
what_is_no_text_makes_no_event(void **state)
{
    size_t         i, len;
    nango_tag_t    tag;
    nango_event_t  ev, bad;

    memset(&ev, 0, sizeof(ev));

    tag.name = S("a");
    tag.value = S("b");

    ev.type = NANGO_TYPE_AUTH;
    ev.operation = NANGO_OP_CREATION;
    ev.integration = S("github");
    ev.connection_id = S("c-1");
    ev.tags = &tag;
    ev.ntags = 1;
    ev.error_type = S("x");

    for (i = 0; i < 6; i++) {
        bad = ev;

        switch (i) {
        case 0: bad.integration = S("\xff"); break;
        case 1: bad.connection_id = S("\xff"); break;
        case 2: bad.provider = S("\xff"); break;
        case 3: bad.error_text = S("\xff"); break;
        case 4: tag.value = S("\xff"); break;
        case 5: tag.value = S("b"); tag.name = S("\xff"); break;
        }

        assert_null(nango_event_body(&bad, S("prod"), &len));
    }

    tag.name = S("a");
    assert_null(nango_event_body(&ev, S("\xff"), &len));
}


static void
success_is_said_in_so_many_words(void **state)
{
    size_t     i;
    capture_t  c;

    static const nango_str_t  none[] = {
        nango_null_str, nango_string(""), nango_string("true"),
        nango_string("{}"), nango_string("[{\"success\":true}]"),
        nango_string("{\"success\":false}"), nango_string("{\"success\":1}"),
        nango_string("{\"success\":\"true\"}"),
        nango_string("{\"Success\":true}"), nango_string("{\"success\":true"),
        nango_string("{\"data\":{\"success\":true}}")
    };

    c = capture("api-connection-delete.txt");
    assert_true(nango_api_success(c.body));
    free(c.memory);

    c = capture("api-connection-delete-again.txt");
    assert_false(nango_api_success(c.body));
    free(c.memory);

    assert_true(nango_api_success(S(" { \"a\":[], \"success\" : true } ")));

    for (i = 0; i < COUNT(none); i++) {
        assert_false(nango_api_success(none[i]));
    }
}


#define unit(f)  cmocka_unit_test(f)

int
main(void)
{
    const struct CMUnitTest  tests[] = {
        unit(a_target_is_named_by_its_id),
        unit(another_form_of_id_is_nobodys),
        unit(a_target_is_named_by_its_integration),
        unit(a_target_is_named_as_nango_names_it),
        unit(a_target_is_what_is_accepted),
        unit(a_target_that_is_none_is_refused),
        unit(a_targets_ids_have_a_limit),
        unit(a_path_is_one_segment),
        unit(ids_that_are_paths_are_not_usable),
        unit(the_api_says_how_a_connection_is),
        unit(its_tags_go_before_its_end_user),
        unit(a_connection_may_need_its_user_again),
        unit(what_is_no_connection_has_no_ids),
        unit(short_end_users_fit),
        unit(an_event_is_written_as_nango_would),
        unit(an_event_is_read_as_it_was_written),
        unit(what_is_no_text_makes_no_event),
        unit(success_is_said_in_so_many_words)
    };

    return cmocka_run_group_tests_name("connection", tests, NULL, NULL);
}
