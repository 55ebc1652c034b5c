/*
 * Copyright (C) nginx-nango authors
 */

#include "core_test.h"

#include "nango_event.h"
#include "nango_json.h"


/* Parses a copy of the body and frees it: the strings are the event's own. */

static nango_event_t
parse(nango_str_t body)
{
    nango_str_t    copy;
    nango_event_t  ev;

    copy = exact(body);
    assert_int_equal(nango_event_parse(&ev, copy), 0);
    memset((void *) copy.data, 'X', copy.len);
    exact_free(copy);

    return ev;
}


static nango_str_t
tag(const nango_event_t *ev, const char *name)
{
    size_t  i;

    for (i = 0; i < ev->ntags; i++) {
        if (nango_str_is(ev->tags[i].name, name)) {
            return ev->tags[i].value;
        }
    }

    return nango_str(NULL, 0);
}


static void
creation_with_end_user_is_read(void **state)
{
    capture_t      c;
    nango_event_t  ev;

    c = capture("apikey-creation.http");
    ev = parse(c.body);

    assert_int_equal(ev.type, NANGO_TYPE_AUTH);
    assert_int_equal(ev.operation, NANGO_OP_CREATION);
    assert_int_equal(ev.success, NANGO_SUCCESS_TRUE);
    assert_str(ev.type_name, "auth");
    assert_str(ev.integration, "test-apikey");
    assert_str(ev.connection_id, "d76189cb-fd57-4e26-9832-36fcfc1d1e3b");
    assert_str(ev.provider, "airtable-pat");
    assert_int_equal(ev.ntags, 6);
    assert_str(tag(&ev, "end_user_id"), "user-42");
    assert_str(tag(&ev, "end_user_email"), "ann@example.com");
    assert_str(tag(&ev, "organization_id"), "org-7");
    assert_str(tag(&ev, "organization_display_name"), "Org Seven");
    assert_str(tag(&ev, "plan"), "pro");
    assert_str(tag(&ev, "end_user_display_name"), "Ann \xc3\x9cn\xc3\xaf"
                                                  "code");
    assert_absent(ev.error_type);
    assert_absent(ev.error_text);

    nango_event_free(&ev);
    free(c.memory);
}


static void
creation_with_tags_is_read(void **state)
{
    capture_t      c;
    nango_event_t  ev;

    c = capture("tagsonly-creation.http");
    ev = parse(c.body);

    assert_int_equal(ev.operation, NANGO_OP_CREATION);
    assert_int_equal(ev.success, NANGO_SUCCESS_TRUE);
    assert_int_equal(ev.ntags, 3);
    assert_str(tag(&ev, "end_user_id"), "user-43");
    assert_str(tag(&ev, "team"), "Blue");

    nango_event_free(&ev);
    free(c.memory);
}


static void
override_without_tags_is_read(void **state)
{
    capture_t      c;
    nango_event_t  ev;

    c = capture("apikey-override-notags.http");
    ev = parse(c.body);

    assert_int_equal(ev.operation, NANGO_OP_OVERRIDE);
    assert_int_equal(ev.success, NANGO_SUCCESS_TRUE);
    assert_int_equal(ev.ntags, 0);
    assert_null(ev.tags);

    nango_event_free(&ev);
    free(c.memory);
}


static void
denied_creation_is_read(void **state)
{
    capture_t      c;
    nango_event_t  ev;

    c = capture("oauth2-denied.http");
    ev = parse(c.body);

    assert_int_equal(ev.operation, NANGO_OP_CREATION);
    assert_int_equal(ev.success, NANGO_SUCCESS_FALSE);
    assert_str(ev.error_type, "invalid_callback");
    assert_str(ev.error_text, "Did not get authorization code in the "
               "callback. Provider error: error: access_denied; "
               "error_description: user said no");
    assert_int_equal(ev.ntags, 0);

    nango_event_free(&ev);
    free(c.memory);
}


static void
failed_refresh_is_read(void **state)
{
    capture_t      c;
    nango_event_t  ev;

    c = capture("oauth2-refresh-error.http");
    ev = parse(c.body);

    assert_int_equal(ev.operation, NANGO_OP_REFRESH);
    assert_int_equal(ev.success, NANGO_SUCCESS_FALSE);
    assert_str(ev.error_type, "refresh_token_external_error");
    assert_str(tag(&ev, "end_user_id"), "user-42");

    nango_event_free(&ev);
    free(c.memory);
}


static void
head_has_the_head_alone(void **state)
{
    capture_t      c;
    nango_event_t  ev;

    c = capture("oauth2-refresh-error.http");
    assert_int_equal(nango_event_parse_head(&ev, c.body), 0);

    assert_int_equal(ev.type, NANGO_TYPE_AUTH);
    assert_int_equal(ev.operation, NANGO_OP_REFRESH);
    assert_int_equal(ev.success, NANGO_SUCCESS_FALSE);
    assert_str(ev.type_name, "auth");
    assert_str(ev.integration, "test-oauth2");
    assert_str(ev.connection_id, "b4d976af-e09d-4d43-9207-51a9f386c5b6");
    assert_absent(ev.provider);
    assert_absent(ev.error_type);
    assert_int_equal(ev.ntags, 0);
    assert_null(ev.tags);

    nango_event_free(&ev);
    free(c.memory);
}


static void
anything_is_an_event(void **state)
{
    size_t         i;
    nango_event_t  ev;

    static const nango_str_t  table[] = {
        nango_string(""), nango_string("null"), nango_string("true"),
        nango_string("[]"), nango_string("{}"), nango_string("5"),
        nango_string("\"auth\""), nango_string("hello"), nango_string("\0"),
        nango_string("{\"type\":\"auth\""), nango_string("\xff\xfe"),
        nango_string("[{\"type\":\"auth\"}]"),
        nango_string("{\"type\":\"auth\",}"),
        nango_string("\xef\xbb\xbf{\"type\":\"auth\"}"),
        nango_string("a=b&type=auth"),
        nango_string("{\"payload\":{\"type\":\"auth\"}}")
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        ev = parse(table[i]);
        assert_int_equal(ev.type, NANGO_TYPE_OTHER);
        assert_int_equal(ev.operation, NANGO_OP_NONE);
        assert_int_equal(ev.success, NANGO_SUCCESS_NONE);
        assert_absent(ev.type_name);
        assert_absent(ev.integration);
        assert_absent(ev.connection_id);
        nango_event_free(&ev);

        assert_int_equal(nango_event_parse_head(&ev, table[i]), 0);
        assert_int_equal(ev.type, NANGO_TYPE_OTHER);
        nango_event_free(&ev);
    }

    ev = parse(nango_str(NULL, 0));
    assert_int_equal(ev.type, NANGO_TYPE_OTHER);
    nango_event_free(&ev);
}


static void
types_are_told_apart(void **state)
{
    size_t         i;
    nango_event_t  ev;

    static const struct {
        nango_str_t   body;
        nango_type_e  type;
        const char   *name;
    } table[] = {
#define row(b, t, n)  { nango_string("{\"type\":" b "}"), t, n }
        row("\"auth\"", NANGO_TYPE_AUTH, "auth"),
        row("\"sync\"", NANGO_TYPE_SYNC, "sync"),
        row("\"async_action\"", NANGO_TYPE_ASYNC_ACTION, "async_action"),
        row("\"forward\"", NANGO_TYPE_FORWARD, "forward"),
        row("\"\\u0061uth\"", NANGO_TYPE_AUTH, "auth"),
        row("\"Auth\"", NANGO_TYPE_OTHER, "Auth"),
        row("\"other\"", NANGO_TYPE_OTHER, "other"),
        row("\"auth \"", NANGO_TYPE_OTHER, "auth "),
        row("\"brand.new ~\"", NANGO_TYPE_OTHER, "brand.new ~"),
        row("\"\"", NANGO_TYPE_OTHER, NULL),
        row("\"auth\\u0000\"", NANGO_TYPE_OTHER, NULL),
        row("\"auth\\n\"", NANGO_TYPE_OTHER, NULL),
        row("\"auth\x7f\"", NANGO_TYPE_OTHER, NULL),
        row("\"\xc3\xa9\"", NANGO_TYPE_OTHER, NULL),
        row("\"\\ud800\"", NANGO_TYPE_OTHER, NULL),
        row("[\"auth\"]", NANGO_TYPE_OTHER, NULL),
        row("5", NANGO_TYPE_OTHER, NULL),
        row("null", NANGO_TYPE_OTHER, NULL),
        row("\"sync\",\"type\":\"auth\"", NANGO_TYPE_AUTH, "auth"),
        row("\"auth\",\"type\":5", NANGO_TYPE_OTHER, NULL),
        row("\"0123456789012345678901234567890123456789"
            "012345678901234567890123\"", NANGO_TYPE_OTHER,
            "0123456789012345678901234567890123456789"
            "012345678901234567890123"),
        row("\"0123456789012345678901234567890123456789"
            "0123456789012345678901234\"", NANGO_TYPE_OTHER, NULL)
#undef row
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        ev = parse(table[i].body);
        assert_int_equal(ev.type, table[i].type);

        if (table[i].name == NULL) {
            assert_absent(ev.type_name);

        } else {
            assert_str_at(ev.type_name, Z(table[i].name), __FILE__, __LINE__);
        }

        nango_event_free(&ev);
    }
}


static void
operations_are_told_apart(void **state)
{
    size_t         i;
    nango_event_t  ev;

    static const struct {
        nango_str_t  body;
        nango_op_e   op;
    } table[] = {
#define row(b, o)  { nango_string("{\"operation\":" b "}"), o }
        row("\"creation\"", NANGO_OP_CREATION),
        row("\"override\"", NANGO_OP_OVERRIDE),
        row("\"refresh\"", NANGO_OP_REFRESH),
        row("\"deletion\"", NANGO_OP_DELETION),
        row("\"del\\u0065tion\"", NANGO_OP_DELETION),
        row("\"unheard_of\"", NANGO_OP_OTHER),
        row("\"a very long operation indeed\"", NANGO_OP_OTHER),
        row("\"other\"", NANGO_OP_OTHER),
        row("\"\"", NANGO_OP_OTHER),
        row("\"\\ud800\"", NANGO_OP_OTHER),
        row("5", NANGO_OP_NONE),
        row("null", NANGO_OP_NONE),
        row("[\"creation\"]", NANGO_OP_NONE)
#undef row
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        ev = parse(table[i].body);
        assert_int_equal(ev.operation, table[i].op);
        nango_event_free(&ev);
    }
}


static void
success_is_a_literal(void **state)
{
    size_t         i;
    nango_event_t  ev;

    static const struct {
        nango_str_t      body;
        nango_success_e  success;
    } table[] = {
        { nango_string("{\"success\": true }"), NANGO_SUCCESS_TRUE },
        { nango_string("{\"success\":false}"), NANGO_SUCCESS_FALSE },
        { nango_string("{\"success\":\"true\"}"), NANGO_SUCCESS_NONE },
        { nango_string("{\"success\":1}"), NANGO_SUCCESS_NONE },
        { nango_string("{\"success\":null}"), NANGO_SUCCESS_NONE },
        { nango_string("{}"), NANGO_SUCCESS_NONE }
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        ev = parse(table[i].body);
        assert_int_equal(ev.success, table[i].success);
        nango_event_free(&ev);
    }
}


static void
ids_are_decoded(void **state)
{
    size_t         i;
    nango_event_t  ev;

    static const struct {
        nango_str_t  body;
        const char  *id;
    } table[] = {
#define row(b, i)  { nango_string("{\"connectionId\":" b "}"), i }
        row("\"c1\"", "c1"),
        row("\"{}\\\"'\\\\|/\"", "{}\"'\\|/"),
        row("\"\\u0063\\/1\"", "c/1"),
        row("\"\xc3\xa9\"", "\xc3\xa9"),
        row("\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80"),
        row("\"a\",\"connectionId\":\"b\"", "b"),
        row("\"a\",\"connection\\u0049d\":\"b\"", "b"),
        row("\"a\",\"connectionId\":null", NULL),
        row("5", NULL),
        row("null", NULL),
        row("{\"a\":\"b\"}", NULL),
        row("[\"c1\"]", NULL),
        row("\"\"", NULL),
        row("\"\",\"type\":\"auth\"", NULL),
        row("\"a\\u0000b\"", NULL),
        row("\"a\\nb\"", NULL),
        row("\"a\x7f\"", NULL),
        row("\"\\ud800\"", NULL),
        row("\"\\udc00\\ud800\"", NULL),
        row("\"\xff\"", NULL),
        row("\"\xed\xa0\x80\"", NULL),
        row("\"\xc3\"", NULL)
#undef row
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        ev = parse(table[i].body);

        if (table[i].id == NULL) {
            assert_absent(ev.connection_id);

        } else {
            assert_str_at(ev.connection_id, Z(table[i].id), __FILE__,
                          __LINE__);
        }

        nango_event_free(&ev);
    }
}


static void
ids_have_a_limit(void **state)
{
    int            i;
    char           body[8192];
    size_t         len;
    nango_event_t  ev;

    for (i = 0; i < 2; i++) {
        len = sprintf(body, "{\"providerConfigKey\":\"");
        memset(body + len, 'x', NANGO_ID_MAX + i);
        len += NANGO_ID_MAX + i;
        len += sprintf(body + len, "\"}");

        ev = parse(nango_str(body, len));

        if (i == 0) {
            assert_int_equal(ev.integration.len, NANGO_ID_MAX);

        } else {
            assert_absent(ev.integration);
        }

        nango_event_free(&ev);
    }
}


/* Escapes make the text six times as long, and the limit is not on that. */

static void
escaped_ids_have_the_same_limit(void **state)
{
    int            i;
    char           body[8192];
    size_t         len;
    nango_event_t  ev;

    len = sprintf(body, "{\"providerConfigKey\":\"");

    for (i = 0; i < NANGO_ID_MAX; i++) {
        len += sprintf(body + len, "\\u0041");
    }

    len += sprintf(body + len, "\"}");
    ev = parse(nango_str(body, len));
    assert_int_equal(ev.integration.len, NANGO_ID_MAX);
    nango_event_free(&ev);
}


static void
tag_names_become_lower_case(void **state)
{
    nango_event_t  ev;

    ev = parse(S("{\"tags\":{\"End_User_ID\":\"Ann\",\"\\u0050lan\":\"x\"}}"));
    assert_int_equal(ev.ntags, 2);
    assert_str(tag(&ev, "end_user_id"), "Ann");
    assert_str(tag(&ev, "plan"), "x");
    nango_event_free(&ev);
}


static void
last_of_a_tag_counts(void **state)
{
    nango_event_t  ev;

    ev = parse(S("{\"tags\":{\"a\":\"1\",\"b\":\"2\",\"A\":\"3\"}}"));
    assert_int_equal(ev.ntags, 2);
    assert_str(tag(&ev, "a"), "3");
    assert_str(tag(&ev, "b"), "2");
    nango_event_free(&ev);

    ev = parse(S("{\"tags\":{\"a\":\"1\",\"b\":\"2\",\"a\":null}}"));
    assert_int_equal(ev.ntags, 1);
    assert_absent(tag(&ev, "a"));
    assert_str(tag(&ev, "b"), "2");
    nango_event_free(&ev);
}


static void
tags_that_are_none_are_left_out(void **state)
{
    nango_event_t  ev;

    ev = parse(S("{\"tags\":{\"a\":5,\"b\":null,\"c\":\"\",\"d\":[\"x\"],"
                 "\"e\":{},\"f\":\"x\\n\",\"g\":\"\\ud800\",\"h\":\"\xff\","
                 "\"i\":\"\\u0000\",\"j k\":\"x\",\"\":\"x\",\"1\":\"x\","
                 "\"l\\u0000\":\"x\",\"good\":\"yes\",\"m\":true}}"));
    assert_int_equal(ev.ntags, 1);
    assert_str(tag(&ev, "good"), "yes");
    nango_event_free(&ev);
}


static void
tag_values_are_measured_in_utf16(void **state)
{
    int            i;
    char           body[2048];
    size_t         len, n;
    nango_event_t  ev;

    for (n = 127; n <= 128; n++) {
        len = sprintf(body, "{\"tags\":{\"a\":\"");

        for (i = 0; i < (int) n; i++) {
            len += sprintf(body + len, "\xf0\x9f\x98\x80");
        }

        len += sprintf(body + len, "\"}}");
        ev = parse(nango_str(body, len));
        assert_int_equal(ev.ntags, n == 127);
        nango_event_free(&ev);
    }
}


/* An address that Nango would not take today is an owner all the same. */

static void
tag_email_is_not_judged(void **state)
{
    nango_event_t  ev;

    ev = parse(S("{\"tags\":{\"end_user_email\":\"nobody\"}}"));
    assert_str(tag(&ev, "end_user_email"), "nobody");
    nango_event_free(&ev);
}


static void
tags_have_a_limit(void **state)
{
    int            i;
    char           body[4096];
    size_t         len;
    nango_event_t  ev;

    len = sprintf(body, "{\"tags\":{\"t\":\"x\"");

    for (i = 1; i < 100; i++) {
        len += sprintf(body + len, ",\"t%d\":\"%d\"", i, i);
    }

    /* one that is kept may still be replaced */

    len += sprintf(body + len, ",\"t1\":\"last\"}}");

    ev = parse(nango_str(body, len));
    assert_int_equal(ev.ntags, NANGO_EVENT_TAGS_MAX);
    assert_str(tag(&ev, "t"), "x");
    assert_str(tag(&ev, "t63"), "63");
    assert_absent(tag(&ev, "t64"));
    assert_str(tag(&ev, "t1"), "last");
    nango_event_free(&ev);
}


/* The smallest tags there are: the arena's estimate must hold. */

static void
short_tags_fit(void **state)
{
    int            i;
    char           body[1024];
    size_t         len;
    nango_event_t  ev;

    len = sprintf(body, "{\"tags\":{");

    for (i = 0; i < 26; i++) {
        len += sprintf(body + len, "%s\"%c\":\"%c\"", i ? "," : "", 'a' + i,
                       'A' + i);
    }

    len += sprintf(body + len, "}}");
    ev = parse(nango_str(body, len));
    assert_int_equal(ev.ntags, 26);
    assert_str(tag(&ev, "z"), "Z");
    nango_event_free(&ev);

    ev = parse(S("{\"tags\":{\"a\":\"b\"}}"));
    assert_str(tag(&ev, "a"), "b");
    nango_event_free(&ev);
}


static void
repeated_tags_fit(void **state)
{
    int            i;
    char           body[8192];
    size_t         len;
    nango_event_t  ev;

    len = sprintf(body, "{\"tags\":{\"a\":\"0\"");

    for (i = 1; i < 500; i++) {
        len += sprintf(body + len, ",\"a\":\"%d\"", i);
    }

    len += sprintf(body + len, "}}");
    ev = parse(nango_str(body, len));
    assert_int_equal(ev.ntags, 1);
    assert_str(tag(&ev, "a"), "499");
    nango_event_free(&ev);
}


static void
oversized_tags_are_left_out(void **state)
{
    char           *body;
    size_t          len;
    nango_event_t   ev;

    body = malloc(NANGO_JSON_MAX_VALUE + 256);
    assert_non_null(body);

    len = sprintf(body, "{\"connectionId\":\"c\",\"tags\":{\"a\":\"b\"");
    memset(body + len, ' ', NANGO_JSON_MAX_VALUE);
    len += NANGO_JSON_MAX_VALUE;
    len += sprintf(body + len, "}}");

    ev = parse(nango_str(body, len));
    assert_str(ev.connection_id, "c");
    assert_int_equal(ev.ntags, 0);
    nango_event_free(&ev);
    free(body);
}


static void
end_user_stands_in_for_tags(void **state)
{
    size_t         i;
    nango_event_t  ev;

#define END_USER                                                              \
    "\"endUser\":{\"endUserId\":\"u\",\"endUserEmail\":\"u@b.co\","           \
    "\"organizationId\":\"o\",\"tags\":{\"Plan\":\"pro\"}}"

    static const nango_str_t  table[] = {
        nango_string("{" END_USER "}"),
        nango_string("{\"tags\":{}," END_USER "}"),
        nango_string("{\"tags\":null," END_USER "}"),
        nango_string("{\"tags\":[]," END_USER "}"),
        nango_string("{" END_USER ",\"tags\":{\"a\":5}}")
    };

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        ev = parse(table[i]);
        assert_int_equal(ev.ntags, 4);
        assert_str(tag(&ev, "end_user_id"), "u");
        assert_str(tag(&ev, "end_user_email"), "u@b.co");
        assert_str(tag(&ev, "organization_id"), "o");
        assert_str(tag(&ev, "plan"), "pro");
        nango_event_free(&ev);
    }
}


static void
end_user_is_not_mixed_with_tags(void **state)
{
    nango_event_t  ev;

    ev = parse(S("{\"tags\":{\"team\":\"Blue\"}," END_USER "}"));
    assert_int_equal(ev.ntags, 1);
    assert_str(tag(&ev, "team"), "Blue");
    nango_event_free(&ev);
}


static void
end_user_labels_do_not_change_who_it_is(void **state)
{
    nango_event_t  ev;

    ev = parse(S("{\"endUser\":{\"endUserId\":\"u\","
                 "\"tags\":{\"end_user_id\":\"other\",\"a\":\"b\"}}}"));
    assert_int_equal(ev.ntags, 2);
    assert_str(tag(&ev, "end_user_id"), "u");
    nango_event_free(&ev);
}


static void
end_user_may_lack_anything(void **state)
{
    nango_event_t  ev;

    ev = parse(S("{\"endUser\":{\"endUserId\":\"u\",\"endUserEmail\":null,"
                 "\"organizationId\":null,\"tags\":null}}"));
    assert_int_equal(ev.ntags, 1);
    nango_event_free(&ev);

    ev = parse(S("{\"endUser\":{\"tags\":{\"end_user_id\":\"u\"}}}"));
    assert_int_equal(ev.ntags, 1);
    assert_str(tag(&ev, "end_user_id"), "u");
    nango_event_free(&ev);

    ev = parse(S("{\"endUser\":{}}"));
    assert_int_equal(ev.ntags, 0);
    nango_event_free(&ev);

    ev = parse(S("{\"endUser\":\"u\"}"));
    assert_int_equal(ev.ntags, 0);
    nango_event_free(&ev);
}


static void
refused_error_text_leaves_the_failure(void **state)
{
    nango_event_t  ev;

    ev = parse(S("{\"type\":\"auth\",\"success\":false,\"error\":"
                 "{\"type\":\"t\",\"description\":\"\\ud800\"}}"));
    assert_int_equal(ev.success, NANGO_SUCCESS_FALSE);
    assert_str(ev.error_type, "t");
    assert_absent(ev.error_text);
    nango_event_free(&ev);

    ev = parse(S("{\"type\":\"auth\",\"success\":false,"
                 "\"error\":{\"type\":5,\"description\":\"a\\u0000\"}}"));
    assert_int_equal(ev.success, NANGO_SUCCESS_FALSE);
    assert_absent(ev.error_type);
    assert_absent(ev.error_text);
    nango_event_free(&ev);

    ev = parse(S("{\"type\":\"auth\",\"success\":false,\"error\":\"x\"}"));
    assert_absent(ev.error_type);
    nango_event_free(&ev);
}


/* Whatever else the event has. */

static void
empty_error_text_is_absent(void **state)
{
    nango_event_t  ev;

    ev = parse(S("{\"error\":{\"type\":\"\",\"description\":\"\"}}"));
    assert_absent(ev.error_type);
    assert_absent(ev.error_text);
    nango_event_free(&ev);

    ev = parse(S("{\"type\":\"auth\",\"connectionId\":\"c\","
                 "\"error\":{\"type\":\"\",\"description\":\"\"}}"));
    assert_absent(ev.error_type);
    assert_absent(ev.error_text);
    nango_event_free(&ev);
}


static void
error_is_that_of_no_success(void **state)
{
    nango_event_t  ev;

    ev = parse(S("{\"success\":true,\"error\":{\"type\":\"t\"}}"));
    assert_absent(ev.error_type);
    nango_event_free(&ev);

    ev = parse(S("{\"type\":\"sync\",\"error\":{\"type\":\"t\"}}"));
    assert_str(ev.error_type, "t");
    nango_event_free(&ev);
}


static void
error_texts_are_cut_between_characters(void **state)
{
    char           body[8192];
    size_t         i, len;
    nango_event_t  ev;

    len = sprintf(body, "{\"error\":{\"type\":\"x");

    for (i = 0; i < 200; i++) {
        len += sprintf(body + len, "\xc3\xa9");
    }

    len += sprintf(body + len, "\",\"description\":\"");

    for (i = 0; i < 1000; i++) {
        len += sprintf(body + len, "\xe2\x82\xac");
    }

    len += sprintf(body + len, "\"}}");
    ev = parse(nango_str(body, len));

    assert_int_equal(ev.error_type.len, 255);
    assert_int_equal(ev.error_text.len, 2046);
    assert_memory_equal(ev.error_text.data + 2043, "\xe2\x82\xac", 3);

    nango_event_free(&ev);
}


static void
free_leaves_nothing(void **state)
{
    nango_event_t  ev;

    ev = parse(S("{\"type\":\"auth\"}"));
    nango_event_free(&ev);
    assert_null(ev.memory);
    assert_absent(ev.type_name);
    nango_event_free(&ev);
}


static void
names_are_fixed(void **state)
{
    assert_string_equal(nango_type_name(NANGO_TYPE_OTHER), "other");
    assert_string_equal(nango_type_name(NANGO_TYPE_AUTH), "auth");
    assert_string_equal(nango_type_name(NANGO_TYPE_SYNC), "sync");
    assert_string_equal(nango_type_name(NANGO_TYPE_ASYNC_ACTION),
                        "async_action");
    assert_string_equal(nango_type_name(NANGO_TYPE_FORWARD), "forward");
    assert_string_equal(nango_type_name((nango_type_e) 99), "other");

    assert_string_equal(nango_op_name(NANGO_OP_NONE), "");
    assert_string_equal(nango_op_name(NANGO_OP_CREATION), "creation");
    assert_string_equal(nango_op_name(NANGO_OP_OVERRIDE), "override");
    assert_string_equal(nango_op_name(NANGO_OP_REFRESH), "refresh");
    assert_string_equal(nango_op_name(NANGO_OP_DELETION), "deletion");
    assert_string_equal(nango_op_name(NANGO_OP_OTHER), "other");
    assert_string_equal(nango_op_name((nango_op_e) 99), "other");
}


static void
numbers_are_those_on_disk(void **state)
{
    assert_int_equal(NANGO_TYPE_OTHER, 0);
    assert_int_equal(NANGO_TYPE_AUTH, 1);
    assert_int_equal(NANGO_TYPE_SYNC, 2);
    assert_int_equal(NANGO_TYPE_ASYNC_ACTION, 3);
    assert_int_equal(NANGO_TYPE_FORWARD, 4);
    assert_int_equal(NANGO_OP_NONE, 0);
    assert_int_equal(NANGO_OP_CREATION, 1);
    assert_int_equal(NANGO_OP_OVERRIDE, 2);
    assert_int_equal(NANGO_OP_REFRESH, 3);
    assert_int_equal(NANGO_OP_DELETION, 4);
    assert_int_equal(NANGO_OP_OTHER, 5);
}


static void
only_nangos_own_types_dedupe(void **state)
{
    assert_true(nango_type_dedupes(NANGO_TYPE_AUTH));
    assert_true(nango_type_dedupes(NANGO_TYPE_SYNC));
    assert_true(nango_type_dedupes(NANGO_TYPE_ASYNC_ACTION));
    assert_false(nango_type_dedupes(NANGO_TYPE_FORWARD));
    assert_false(nango_type_dedupes(NANGO_TYPE_OTHER));
    assert_false(nango_type_dedupes((nango_type_e) 99));
}


#define unit(f)  cmocka_unit_test(f)

int
main(void)
{
    const struct CMUnitTest  tests[] = {
        unit(creation_with_end_user_is_read),
        unit(creation_with_tags_is_read),
        unit(override_without_tags_is_read),
        unit(denied_creation_is_read),
        unit(failed_refresh_is_read),
        unit(head_has_the_head_alone),
        unit(anything_is_an_event),
        unit(types_are_told_apart),
        unit(operations_are_told_apart),
        unit(success_is_a_literal),
        unit(ids_are_decoded),
        unit(ids_have_a_limit),
        unit(escaped_ids_have_the_same_limit),
        unit(tag_names_become_lower_case),
        unit(last_of_a_tag_counts),
        unit(tags_that_are_none_are_left_out),
        unit(tag_values_are_measured_in_utf16),
        unit(tag_email_is_not_judged),
        unit(tags_have_a_limit),
        unit(short_tags_fit),
        unit(repeated_tags_fit),
        unit(oversized_tags_are_left_out),
        unit(end_user_stands_in_for_tags),
        unit(end_user_is_not_mixed_with_tags),
        unit(end_user_labels_do_not_change_who_it_is),
        unit(end_user_may_lack_anything),
        unit(refused_error_text_leaves_the_failure),
        unit(empty_error_text_is_absent),
        unit(error_is_that_of_no_success),
        unit(error_texts_are_cut_between_characters),
        unit(free_leaves_nothing),
        unit(names_are_fixed),
        unit(numbers_are_those_on_disk),
        unit(only_nangos_own_types_dedupe)
    };

    return cmocka_run_group_tests_name("event", tests, NULL, NULL);
}
