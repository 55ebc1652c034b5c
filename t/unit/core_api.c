/*
 * Copyright (C) nginx-nango authors
 */

#include "core_test.h"

#include "nango_api.h"
#include "nango_json.h"


#define TAG(n, v)  { nango_string(n), nango_string(v) }
#define COUNT(a)   (sizeof(a) / sizeof(a[0]))


static const nango_tag_t  user_tags[] = {
    TAG("end_user_id", "42"),
    TAG("end_user_email", "ann@example.com"),
    TAG("end_user_display_name", "Ann"),
    TAG("plan", "pro")
};

static const nango_tag_t  organization_tags[] = {
    TAG("organization_id", "acme"),
    TAG("organization_display_name", "Acme")
};

static const nango_tag_t  both_tags[] = {
    TAG("end_user_id", "42"),
    TAG("organization_id", "acme"),
    TAG("organization_display_name", "Acme"),
    TAG("team", "Blue")
};


static nango_session_t
session(nango_session_format_e format, const nango_tag_t *tags, size_t n)
{
    nango_session_t  s;

    memset(&s, 0, sizeof(s));
    s.format = format;
    s.tags = tags;
    s.ntags = n;

    return s;
}


static void
assert_body(const nango_session_t *s, const char *expected)
{
    char        *body;
    size_t       len;
    const char  *error;

    error = "stale";
    body = nango_session_body(s, &len, &error);

    assert_null(error);
    assert_non_null(body);
    assert_str_at(nango_str(body, len), Z(expected), __FILE__, __LINE__);

    free(body);
}


static void
assert_no_body(const nango_session_t *s, const char *expected)
{
    size_t       len;
    const char  *error;

    error = NULL;
    assert_null(nango_session_body(s, &len, &error));
    assert_non_null(error);
    assert_string_equal(error, expected);
}


static void
tags_format(void **state)
{
    nango_session_t  s;

    s = session(NANGO_SESSION_TAGS, user_tags, COUNT(user_tags));
    assert_body(&s, "{\"tags\":{\"end_user_id\":\"42\","
        "\"end_user_email\":\"ann@example.com\","
        "\"end_user_display_name\":\"Ann\",\"plan\":\"pro\"}}");

    s = session(NANGO_SESSION_TAGS, organization_tags,
                COUNT(organization_tags));
    assert_body(&s, "{\"tags\":{\"organization_id\":\"acme\","
        "\"organization_display_name\":\"Acme\"}}");

    /* one of "tags" and "end_user" must be there, and {} will do */

    s = session(NANGO_SESSION_TAGS, NULL, 0);
    assert_body(&s, "{\"tags\":{}}");
}


static void
end_user_format(void **state)
{
    nango_session_t  s;

    s = session(NANGO_SESSION_END_USER, user_tags, COUNT(user_tags));
    assert_body(&s, "{\"end_user\":{\"id\":\"42\","
        "\"email\":\"ann@example.com\",\"display_name\":\"Ann\","
        "\"tags\":{\"plan\":\"pro\"}}}");

    s = session(NANGO_SESSION_END_USER, user_tags, 1);
    assert_body(&s, "{\"end_user\":{\"id\":\"42\"}}");

    s = session(NANGO_SESSION_END_USER, both_tags, COUNT(both_tags));
    assert_body(&s, "{\"end_user\":{\"id\":\"42\","
        "\"tags\":{\"team\":\"Blue\"}},"
        "\"organization\":{\"id\":\"acme\",\"display_name\":\"Acme\"}}");

    s = session(NANGO_SESSION_END_USER, both_tags, 2);
    assert_body(&s, "{\"end_user\":{\"id\":\"42\"},"
        "\"organization\":{\"id\":\"acme\"}}");
}


static void
both_formats(void **state)
{
    nango_session_t  s;

    s = session(NANGO_SESSION_BOTH, both_tags, COUNT(both_tags));
    assert_body(&s, "{\"tags\":{\"end_user_id\":\"42\","
        "\"organization_id\":\"acme\","
        "\"organization_display_name\":\"Acme\",\"team\":\"Blue\"},"
        "\"end_user\":{\"id\":\"42\",\"tags\":{\"team\":\"Blue\"}},"
        "\"organization\":{\"id\":\"acme\",\"display_name\":\"Acme\"}}");
}


static void
end_user_needs_its_id(void **state)
{
    nango_session_t  s;

    s = session(NANGO_SESSION_END_USER, organization_tags,
                COUNT(organization_tags));
    assert_no_body(&s, "the format \"end_user\" needs the tag "
                       "\"end_user_id\"");

    s = session(NANGO_SESSION_END_USER, user_tags + 1, 1);
    assert_no_body(&s, "the format \"end_user\" needs the tag "
                       "\"end_user_id\"");
}


static void
both_without_user_is_tags_alone(void **state)
{
    nango_session_t  s;

    s = session(NANGO_SESSION_BOTH, organization_tags,
                COUNT(organization_tags));
    assert_body(&s, "{\"tags\":{\"organization_id\":\"acme\","
        "\"organization_display_name\":\"Acme\"}}");
}


static void
organization_needs_its_id(void **state)
{
    nango_session_t    s;
    const nango_tag_t  tags[] = {
        TAG("end_user_id", "42"),
        TAG("organization_display_name", "Acme")
    };

    s = session(NANGO_SESSION_END_USER, tags, 2);
    assert_body(&s, "{\"end_user\":{\"id\":\"42\"}}");
}


static void
integrations_are_listed(void **state)
{
    nango_session_t    s;
    const nango_str_t  ids[] = {
        nango_string("github"), nango_string("a~:.@ _-")
    };

    s = session(NANGO_SESSION_TAGS, user_tags, 1);
    s.integrations = ids;
    s.nintegrations = 2;
    assert_body(&s, "{\"tags\":{\"end_user_id\":\"42\"},"
        "\"allowed_integrations\":[\"github\",\"a~:.@ _-\"]}");
}


/* Nango's server refuses "allowed_integrations" in a reconnect. */

static void
reconnect_names_its_connection(void **state)
{
    nango_session_t    s;
    const nango_str_t  ids[] = { nango_string("github") };

    s = session(NANGO_SESSION_BOTH, user_tags, 1);
    s.connection_id = S("c/\"1\"");
    s.integration_id = S("github");
    s.integrations = ids;
    s.nintegrations = 1;
    assert_body(&s, "{\"connection_id\":\"c/\\\"1\\\"\","
        "\"integration_id\":\"github\",\"tags\":{\"end_user_id\":\"42\"},"
        "\"end_user\":{\"id\":\"42\"}}");
}


#define EXTRA(i, k, n, v)                                                     \
    { nango_string(i), nango_string(k), nango_string(n), nango_string(v) }

static void
defaults_are_gathered_by_integration(void **state)
{
    nango_session_t  s;

    static const nango_session_default_t  defaults[] = {
        EXTRA("github", "user_scopes", "", "repo"),
        EXTRA("slack", "connection_config", "a.b", "1"),
        EXTRA("github", "authorization_params", "login_hint", "a\"b"),
        EXTRA("github", "authorization_params", "prompt", ""),
        EXTRA("github", "user_scopes", "", "user"),
        EXTRA("github", "authorization_params", "prompt", "\xc3\xbc\n")
    };

    s = session(NANGO_SESSION_TAGS, user_tags, 1);
    s.defaults = defaults;
    s.ndefaults = COUNT(defaults);
    assert_body(&s, "{\"tags\":{\"end_user_id\":\"42\"},"
        "\"integrations_config_defaults\":{\"github\":{\"user_scopes\":"
        "\"user\",\"authorization_params\":{\"login_hint\":\"a\\\"b\","
        "\"prompt\":\"\xc3\xbc\\n\"}},\"slack\":{\"connection_config\":"
        "{\"a.b\":\"1\"}}}}");
}


static void
docs_and_the_webhooks_url_go_last(void **state)
{
    nango_session_t    s;
    const nango_str_t  ids[] = { nango_string("github") };

    static const nango_session_default_t  defaults[] = {
        EXTRA("github", "user_scopes", "", "repo")
    };

    static const nango_session_docs_t  docs[] = {
        { nango_string("github"), nango_string("https://a") },
        { nango_string("slack"), nango_string("https://b") },
        { nango_string("github"), nango_string("https://c") }
    };

    s = session(NANGO_SESSION_TAGS, user_tags, 1);
    s.integrations = ids;
    s.nintegrations = 1;
    s.defaults = defaults;
    s.ndefaults = 1;
    s.docs = docs;
    s.ndocs = 3;
    s.webhook_url = S("https://d");
    assert_body(&s, "{\"tags\":{\"end_user_id\":\"42\"},"
        "\"allowed_integrations\":[\"github\"],"
        "\"integrations_config_defaults\":{\"github\":"
        "{\"user_scopes\":\"repo\"}},"
        "\"overrides\":{\"github\":{\"docs_connect\":\"https://c\"},"
        "\"slack\":{\"docs_connect\":\"https://b\"}},"
        "\"webhook_url_override\":\"https://d\"}");
}


static void
extras_that_are_no_utf8_make_no_body(void **state)
{
    size_t                   i, len;
    const char              *error;
    nango_session_t          s;
    nango_session_docs_t     docs;
    nango_session_default_t  d;

    for (i = 0; i < 6; i++) {
        s = session(NANGO_SESSION_TAGS, user_tags, 1);

        memset(&d, 0, sizeof(d));
        memset(&docs, 0, sizeof(docs));

        d.integration = S("github");
        d.key = S("connection_config");
        d.name = S("a");
        d.value = S("b");
        docs.integration = S("github");
        docs.url = S("https://a");

        s.defaults = &d;
        s.ndefaults = 1;
        s.docs = &docs;
        s.ndocs = 1;

        switch (i) {
        case 0: d.value = S("\xff"); break;
        case 1: d.name = S("\xff"); break;
        case 2: d.integration = S("\xff"); break;
        case 3: docs.url = S("\xff"); break;
        case 4: docs.integration = S("\xff"); break;
        case 5: s.webhook_url = S("\xff"); break;
        }

        assert_null(nango_session_body(&s, &len, &error));
    }
}


static void
unicode_stays_as_it_is(void **state)
{
    nango_session_t    s;
    const nango_tag_t  tags[] = {
        TAG("end_user_id", "\xc3\x9c \xe2\x82\xac \xf0\x9f\x98\x80")
    };

    s = session(NANGO_SESSION_TAGS, tags, 1);
    assert_body(&s, "{\"tags\":{\"end_user_id\":"
        "\"\xc3\x9c \xe2\x82\xac \xf0\x9f\x98\x80\"}}");
}


static void
quotes_and_control_characters_are_escaped(void **state)
{
    nango_session_t    s;
    const nango_tag_t  tags[] = {
        TAG("end_user_id", "\",\"x\":\"\\"),
        TAG("plan", "\n\t\x01\0/")
    };

    s = session(NANGO_SESSION_END_USER, tags, 2);
    assert_body(&s, "{\"end_user\":{\"id\":\"\\\",\\\"x\\\":\\\"\\\\\","
        "\"tags\":{\"plan\":\"\\n\\t\\u0001\\u0000/\"}}}");
}


static void
bytes_that_are_no_utf8_make_no_body(void **state)
{
    nango_session_t    s;
    const nango_str_t  ids[] = { nango_string("\xff") };
    const nango_tag_t  tags[] = {
        TAG("end_user_id", "4\xff"),
        TAG("organization_id", "a")
    };
    const nango_tag_t  more[] = {
        TAG("end_user_id", "4"),
        TAG("organization_id", "\xc3"),
        TAG("organization_display_name", "x")
    };

    static const char  utf8[] = "a value or an id is not UTF-8";

    s = session(NANGO_SESSION_TAGS, tags, 2);
    assert_no_body(&s, utf8);

    s = session(NANGO_SESSION_END_USER, tags, 2);
    assert_no_body(&s, utf8);

    s = session(NANGO_SESSION_END_USER, more, 3);
    assert_no_body(&s, utf8);

    s = session(NANGO_SESSION_TAGS, user_tags, 1);
    s.integrations = ids;
    s.nintegrations = 1;
    assert_no_body(&s, utf8);

    s = session(NANGO_SESSION_TAGS, user_tags, 1);
    s.connection_id = S("c");
    s.integration_id = S("\xed\xa0\x80");
    assert_no_body(&s, utf8);
}


static void
names_that_nango_refuses_make_no_body(void **state)
{
    nango_session_t    s;
    const nango_tag_t  tags[] = {
        TAG("end_user_id", "4"),
        TAG("a\0b", "x")
    };

    s = session(NANGO_SESSION_TAGS, tags, 2);
    assert_no_body(&s, "the name of a tag is not one that Nango takes");

    s = session(NANGO_SESSION_END_USER, tags, 2);
    assert_no_body(&s, "the name of a tag is not one that Nango takes");
}


static void
reply_is_read(void **state)
{
    capture_t              c;
    nango_session_reply_t  r;

    c = capture("api-sessions-success.txt");
    assert_int_equal(nango_session_reply_parse(&r, c.body), 0);
    memset((void *) c.body.data, 'X', c.body.len);

    assert_str(r.token, "nango_connect_session_9a3859e3af0225debd5259629ed0d"
                        "5d8fe109e5fd0e313a14f9818b66d1ef043");
    assert_str(r.connect_link, "http://localhost:3009/?session_token="
                        "nango_connect_session_9a3859e3af0225debd5259629ed0d"
                        "5d8fe109e5fd0e313a14f9818b66d1ef043");
    assert_str(r.expires_at, "2026-11-23T08:57:04.081Z");

    nango_session_reply_free(&r);
    free(c.memory);
}


static void
reply_may_hold_more(void **state)
{
    nango_session_reply_t  r;

    assert_int_equal(nango_session_reply_parse(&r,
        S("{\"x\":[1],\"data\":{\"new\":{},\"expires_at\":\"e\","
          "\"connect_link\":\"https:\\/\\/c\",\"token\":\"aZ09_-\"}}")), 0);
    assert_str(r.token, "aZ09_-");
    assert_str(r.connect_link, "https://c");
    nango_session_reply_free(&r);
}


static void
reply_that_is_none_is_refused(void **state)
{
    size_t                 i;
    nango_session_reply_t  r;

#define REPLY(t, l, e)                                                        \
    nango_string("{\"data\":{\"token\":" t ",\"connect_link\":" l             \
                 ",\"expires_at\":" e "}}")

    static const nango_str_t  table[] = {
        nango_string(""), nango_string("null"), nango_string("[]"),
        nango_string("{}"), nango_string("{\"data\":null}"),
        nango_string("{\"data\":[]}"), nango_string("{\"data\":{}}"),
        nango_string("<html>502 Bad Gateway</html>"),
        nango_string("{\"token\":\"t\",\"connect_link\":\"l\","
                     "\"expires_at\":\"e\"}"),
        nango_string("{\"data\":{\"token\":\"t\",\"connect_link\":\"l\"}}"),
        nango_string("{\"data\":{\"token\":\"t\",\"connect_link\":\"l\","
                     "\"expires_at\":\"e\"}"),
        REPLY("\"\"", "\"l\"", "\"e\""),
        REPLY("\"t\"", "\"\"", "\"e\""),
        REPLY("\"t\"", "\"l\"", "\"\""),
        REPLY("5", "\"l\"", "\"e\""),
        REPLY("12345", "\"l\"", "\"e\""),
        REPLY("\"t\"", "null", "\"e\""),
        REPLY("\"t\"", "\"l\"", "1795422441"),
        REPLY("\"t t\"", "\"l\"", "\"e\""),
        REPLY("\"t\\n\"", "\"l\"", "\"e\""),
        REPLY("\"t\\\"\"", "\"l\"", "\"e\""),
        REPLY("\"t.\"", "\"l\"", "\"e\""),
        REPLY("\"\xc3\xa9\"", "\"l\"", "\"e\""),
        REPLY("\"t@\"", "\"l\"", "\"e\""),
        REPLY("\"t[\"", "\"l\"", "\"e\""),
        REPLY("\"t`\"", "\"l\"", "\"e\""),
        REPLY("\"t{\"", "\"l\"", "\"e\""),
        REPLY("\"t/\"", "\"l\"", "\"e\""),
        REPLY("\"t:\"", "\"l\"", "\"e\""),
        REPLY("\"t\"", "\"l\\r\\nX: y\"", "\"e\""),
        REPLY("\"t\"", "\"l\\u0000\"", "\"e\""),
        REPLY("\"t\"", "\"\\ud800\"", "\"e\""),
        REPLY("\"t\"", "\"\xff\"", "\"e\""),
        REPLY("\"t\"", "\"l\"", "\"e\\t\"")
    };

    for (i = 0; i < COUNT(table); i++) {
        if (nango_session_reply_parse(&r, table[i]) != -1) {
            fail_msg("entry %zu", i);
        }
    }
}


static void
reply_strings_have_a_limit(void **state)
{
    int                    i;
    char                   body[8192];
    size_t                 len;
    nango_session_reply_t  r;

    for (i = 0; i < 2; i++) {
        len = sprintf(body, "{\"data\":{\"token\":\"");
        memset(body + len, 't', 4096 + i);
        len += 4096 + i;
        len += sprintf(body + len, "\",\"connect_link\":\"l\","
                                   "\"expires_at\":\"e\"}}");

        assert_int_equal(nango_session_reply_parse(&r, nango_str(body, len)),
                         i == 0 ? 0 : -1);

        if (i == 0) {
            assert_int_equal(r.token.len, 4096);
            nango_session_reply_free(&r);
        }
    }
}


static void
assert_link(const char *link, const char *api, int link_api,
    const char *expected)
{
    char                   *answer;
    size_t                  len;
    nango_session_reply_t   r;
    nango_json_member_t     m = { nango_string("connectLink"),
                                  nango_null_str };

    memset(&r, 0, sizeof(r));
    r.token = S("t");
    r.connect_link = Z(link);
    r.expires_at = S("e");

    answer = nango_session_answer(&r, Z(api), S("https://connect"), link_api,
                                  &len);
    assert_non_null(answer);
    assert_int_equal(nango_json_members(nango_str(answer, len), &m, 1),
                     NANGO_JSON_OBJECT);
    assert_str_at(nango_str(m.value.data + 1, m.value.len - 2), Z(expected),
                  __FILE__, __LINE__);
    free(answer);
}


static void
answer_is_what_the_frontend_takes(void **state)
{
    char                   *answer;
    size_t                  len;
    nango_session_reply_t   r;

    memset(&r, 0, sizeof(r));
    r.token = S("t");
    r.connect_link = S("https://c/?session_token=t");
    r.expires_at = S("2026-11-23T08:57:04.081Z");

    answer = nango_session_answer(&r, S("https://api.nango.dev"),
                                  S("https://connect.nango.dev"), 0, &len);
    assert_non_null(answer);
    assert_str(nango_str(answer, len), "{\"sessionToken\":\"t\","
        "\"connectLink\":\"https://c/?session_token=t\","
        "\"expiresAt\":\"2026-11-23T08:57:04.081Z\","
        "\"apiURL\":\"https://api.nango.dev\","
        "\"connectURL\":\"https://connect.nango.dev\"}");
    free(answer);
}


static void
link_gets_the_api(void **state)
{
    assert_link("https://c/", "http://a:3003", 1,
                "https://c/?apiURL=http%3A%2F%2Fa%3A3003");
    assert_link("https://c/?t=1", "http://a", 1,
                "https://c/?t=1&apiURL=http%3A%2F%2Fa");
    assert_link("https://c/?", "a", 1, "https://c/?apiURL=a");
    assert_link("https://c/?t=1&", "a", 1, "https://c/?t=1&apiURL=a");
    assert_link("https://c/?t=1?", "a", 1, "https://c/?t=1?&apiURL=a");
    assert_link("https://c/?t=1?#x", "a", 1, "https://c/?t=1?&apiURL=a#x");
    assert_link("https://c/?#x", "a", 1, "https://c/?apiURL=a#x");
    assert_link("https://c/", "a-b.c_d~e&f=g#h i", 1,
                "https://c/?apiURL=a-b.c_d~e%26f%3Dg%23h%20i");
    assert_link("https://c/", "\xc3\xa9", 1, "https://c/?apiURL=%C3%A9");
}


static void
link_keeps_its_fragment_last(void **state)
{
    assert_link("https://c/#x", "a", 1, "https://c/?apiURL=a#x");
    assert_link("https://c/?t=1#x", "a", 1, "https://c/?t=1&apiURL=a#x");
    assert_link("https://c/#x?apiURL=b", "a", 1,
                "https://c/?apiURL=a#x?apiURL=b");
    assert_link("#x", "a", 1, "?apiURL=a#x");
}


static void
link_keeps_the_api_it_has(void **state)
{
    assert_link("https://c/?apiURL=b", "a", 1, "https://c/?apiURL=b");
    assert_link("https://c/?t=1&apiURL=b&u=2#f", "a", 1,
                "https://c/?t=1&apiURL=b&u=2#f");
    assert_link("https://c/?apiURL", "a", 1, "https://c/?apiURL");
    assert_link("https://c/?t=1&apiURL=", "a", 1, "https://c/?t=1&apiURL=");
}


static void
link_is_not_misled_by_alike_names(void **state)
{
    assert_link("https://c/?xapiURL=b", "a", 1,
                "https://c/?xapiURL=b&apiURL=a");
    assert_link("https://c/?apiURLx=b", "a", 1,
                "https://c/?apiURLx=b&apiURL=a");
    assert_link("https://c/?t=apiURL", "a", 1,
                "https://c/?t=apiURL&apiURL=a");
    assert_link("https://c/?t=apiURL=b", "a", 1,
                "https://c/?t=apiURL=b&apiURL=a");
    assert_link("https://c/apiURL=b", "a", 1, "https://c/apiURL=b?apiURL=a");
}


static void
link_is_left_alone_unless_asked(void **state)
{
    assert_link("https://c/?t=1", "http://a", 0, "https://c/?t=1");
}


static void
answer_needs_utf8(void **state)
{
    size_t                 len;
    nango_session_reply_t  r;

    memset(&r, 0, sizeof(r));
    r.token = S("t");
    r.connect_link = S("l");
    r.expires_at = S("e");

    assert_null(nango_session_answer(&r, S("\xff"), S("c"), 0, &len));
    assert_null(nango_session_answer(&r, S("a"), S("\xff"), 1, &len));
}


static void
assert_error(nango_str_t body, const char *code, const char *message)
{
    nango_str_t        copy;
    nango_api_error_t  e;

    memset(&e, 'X', sizeof(e));
    copy = exact(body);
    nango_api_error_parse(&e, copy);
    exact_free(copy);

    assert_string_equal(e.code, code);
    assert_string_equal(e.message, message);
}


static void
captured_errors_are_read(void **state)
{
    size_t     i;
    capture_t  c;

    static const struct {
        const char  *file;
        const char  *code;
        const char  *message;
    } table[] = {
        { "api-connection-delete-again.txt", "unknown_connection", "" },
        { "api-connection-get-404.txt", "not_found",
          "Failed to find connection" },
        { "api-reconnect-unknown.txt", "invalid_body",
          "ConnectionID or IntegrationId does not exists" },
        { "api-sessions-bad-key.txt", "unknown_account",
          "Authentication failed. The provided authorization header does "
          "not match any account." },
        { "api-sessions-invalid-integration.txt", "invalid_body",
          "Integration does not exist" },
        { "api-connection-get.txt", "", "" },
        { "api-sessions-success.txt", "", "" }
    };

    for (i = 0; i < COUNT(table); i++) {
        c = capture(table[i].file);
        assert_error(c.body, table[i].code, table[i].message);
        free(c.memory);
    }
}


static void
errors_of_any_shape_are_read(void **state)
{
    assert_error(S("{\"error\":{\"code\":\"c\",\"message\":\"m\"}}"),
                 "c", "m");
    assert_error(S("{\"error\":{\"code\":\"c\",\"message\":\"m\","
                   "\"errors\":[{\"message\":\"first\"},"
                   "{\"message\":\"second\"}]}}"), "c", "first");
    assert_error(S("{\"error\":{\"code\":\"c\",\"message\":\"m\","
                   "\"errors\":[]}}"), "c", "m");
    assert_error(S("{\"error\":{\"code\":\"c\",\"message\":\"m\","
                   "\"errors\":[\"x\"]}}"), "c", "m");
    assert_error(S("{\"error\":{\"code\":\"c\",\"message\":\"m\","
                   "\"errors\":[{\"code\":\"x\"}]}}"), "c", "m");
    assert_error(S("{\"error\":{\"code\":\"c\",\"message\":\"m\","
                   "\"errors\":{\"message\":\"x\"}}}"), "c", "m");
    assert_error(S("{\"error\":{\"code\":\"c\",\"payload\":\"\\ud800\"}}"),
                 "c", "");
    assert_error(S("{\"error\":{\"code\":5,\"message\":\"m\"}}"), "", "m");
}


static void
other_bodies_are_no_errors(void **state)
{
    assert_error(nango_str(NULL, 0), "", "");
    assert_error(S("<html>"), "", "");
    assert_error(S("null"), "", "");
    assert_error(S("{}"), "", "");
    assert_error(S("{\"error\":\"x\"}"), "", "");
    assert_error(S("{\"error\":null}"), "", "");
    assert_error(S("{\"error\":[{\"code\":\"c\"}]}"), "", "");
    assert_error(S("{\"code\":\"c\",\"message\":\"m\"}"), "", "");
    assert_error(S("{\"error\":{\"code\":\"c\"}"), "", "");
}


static void
errors_are_fit_for_a_log(void **state)
{
    assert_error(S("{\"error\":{\"code\":\"a\\nb\\u001b\","
                   "\"message\":\"x\\r\\ny\\tz\x7f\"}}"),
                 "a b ", "x  y z ");
}


static void
errors_are_cut(void **state)
{
    int                i;
    char               body[4096];
    size_t             len;
    nango_api_error_t  e;

    len = sprintf(body, "{\"error\":{\"code\":\"");

    for (i = 0; i < 100; i++) {
        body[len++] = 'c';
    }

    len += sprintf(body + len, "\",\"message\":\"x");

    for (i = 0; i < 400; i++) {
        len += sprintf(body + len, "\xc3\xa9");
    }

    len += sprintf(body + len, "\"}}");
    nango_api_error_parse(&e, nango_str(body, len));

    assert_int_equal(strlen(e.code), 64);
    assert_int_equal(strlen(e.message), 511);
    assert_string_equal(e.message + 509, "\xc3\xa9");
}


/* The ids of a wish, joined by "|"; or its error. */

static void
assert_wish(nango_str_t body, const char *expected)
{
    int                    rc;
    char                   buf[1024];
    size_t                 i, len;
    const char            *error;
    nango_str_t            copy;
    nango_session_wish_t   wish;

    error = "stale";
    copy = exact(body);
    rc = nango_session_wish_parse(&wish, copy, &error);

    if (copy.len) {
        memset((void *) copy.data, 'X', copy.len);
    }

    exact_free(copy);

    if (rc == -1) {
        assert_non_null(error);
        assert_string_equal(error, expected);
        return;
    }

    assert_int_equal(rc, 0);

    for (i = 0, len = 0; i < wish.nintegrations; i++) {
        memcpy(buf + len, wish.integrations[i].data,
               wish.integrations[i].len);
        len += wish.integrations[i].len;
        buf[len++] = '|';
    }

    buf[len] = '\0';
    assert_string_equal(buf, expected);

    nango_session_wish_free(&wish);
    assert_int_equal(wish.nintegrations, 0);
}


static void
no_wish_is_a_wish(void **state)
{
    assert_wish(nango_str(NULL, 0), "");
    assert_wish(S(""), "");
    assert_wish(S(" \t\r\n"), "");
    assert_wish(S("{}"), "");
    assert_wish(S(" { } "), "");
}


static void
wish_names_one_by_any_alias(void **state)
{
    assert_wish(S("{\"integration\":\"github\"}"), "github|");
    assert_wish(S("{\"integration_id\":\"github\"}"), "github|");
    assert_wish(S("{\"provider_config_key\":\"github\"}"), "github|");
    assert_wish(S("{\"integration\":\"git\\u0068ub\"}"), "github|");
    assert_wish(S("{\"integration\":\"a\",\"integration\":\"b\"}"), "b|");
}


static void
wish_names_several(void **state)
{
    assert_wish(S("{\"integrations\":[\"a\"]}"), "a|");
    assert_wish(S("{ \"integrations\" : [ \"a\" , \"b c\" ,\"d~:.@_-\"] }"),
                "a|b c|d~:.@_-|");
}


static void
wish_with_other_fields_is_refused(void **state)
{
    static const char  unknown[] = "the body has a field that is not known";

    assert_wish(S("{\"tags\":{}}"), unknown);
    assert_wish(S("{\"integration\":\"a\",\"end_user\":{\"id\":\"1\"}}"),
                unknown);
    assert_wish(S("{\"Integration\":\"a\"}"), unknown);
    assert_wish(S("{\"\":1}"), unknown);
}


static void
wish_in_two_ways_is_refused(void **state)
{
    static const char  twice[] =
        "the body names integrations in more than one way";

    assert_wish(S("{\"integration\":\"a\",\"integrations\":[\"b\"]}"), twice);
    assert_wish(S("{\"integration\":\"a\",\"integration_id\":\"a\"}"), twice);
}


static void
wish_that_is_no_object_is_refused(void **state)
{
    size_t  i;

    static const nango_str_t  table[] = {
        nango_string("null"), nango_string("[]"), nango_string("\"github\""),
        nango_string("[\"github\"]"), nango_string("{"), nango_string("x"),
        nango_string("integration=github"), nango_string("{}{}"),
        nango_string("{\"integration\":\"a\""), nango_string("\0"),
        nango_string("\xef\xbb\xbf{}")
    };

    for (i = 0; i < COUNT(table); i++) {
        assert_wish(table[i], "the body is not a JSON object");
    }
}


static void
wish_of_other_types_is_refused(void **state)
{
    static const char  string[] = "an integration must be a string";
    static const char  array[] =
        "\"integrations\" must be an array of strings";

    assert_wish(S("{\"integration\":5}"), string);
    assert_wish(S("{\"integration\":null}"), string);
    assert_wish(S("{\"integration\":[\"a\"]}"), string);
    assert_wish(S("{\"integrations\":[\"a\",5]}"), string);
    assert_wish(S("{\"integrations\":[[\"a\"]]}"), string);
    assert_wish(S("{\"integrations\":[null]}"), string);
    assert_wish(S("{\"integrations\":\"a\"}"), array);
    assert_wish(S("{\"integrations\":{\"a\":1}}"), array);
    assert_wish(S("{\"integrations\":null}"), array);
    assert_wish(S("{\"integrations\":[]}"),
                "\"integrations\" must not be empty");
}


static void
wish_of_bad_ids_is_refused(void **state)
{
    char    body[512];
    size_t  len;

    static const char  invalid[] = "an integration's id is not valid";

    assert_wish(S("{\"integration\":\"\"}"), invalid);
    assert_wish(S("{\"integration\":\"a/b\"}"), invalid);
    assert_wish(S("{\"integration\":\"a\\n\"}"), invalid);
    assert_wish(S("{\"integration\":\"a\\u0000\"}"), invalid);
    assert_wish(S("{\"integration\":\"\xc3\xa9\"}"), invalid);
    assert_wish(S("{\"integrations\":[\"a\",\"\"]}"), invalid);

    len = sprintf(body, "{\"integration\":\"");
    memset(body + len, 'x', 256);
    memcpy(body + len + 256, "\"}", 2);
    assert_wish(nango_str(body, len + 258), invalid);
}


static void
wish_takes_the_longest_id(void **state)
{
    char                   body[512];
    size_t                 len;
    const char            *error;
    nango_session_wish_t   wish;

    len = sprintf(body, "{\"integration\":\"");
    memset(body + len, 'x', 255);
    memcpy(body + len + 255, "\"}", 2);

    assert_int_equal(nango_session_wish_parse(&wish,
                                              nango_str(body, len + 257),
                                              &error), 0);
    assert_int_equal(wish.nintegrations, 1);
    assert_int_equal(wish.integrations[0].len, 255);
    nango_session_wish_free(&wish);
}


#define unit(f)  cmocka_unit_test(f)

int
main(void)
{
    const struct CMUnitTest  tests[] = {
        unit(tags_format),
        unit(end_user_format),
        unit(both_formats),
        unit(end_user_needs_its_id),
        unit(both_without_user_is_tags_alone),
        unit(organization_needs_its_id),
        unit(integrations_are_listed),
        unit(reconnect_names_its_connection),
        unit(defaults_are_gathered_by_integration),
        unit(docs_and_the_webhooks_url_go_last),
        unit(extras_that_are_no_utf8_make_no_body),
        unit(unicode_stays_as_it_is),
        unit(quotes_and_control_characters_are_escaped),
        unit(bytes_that_are_no_utf8_make_no_body),
        unit(names_that_nango_refuses_make_no_body),
        unit(reply_is_read),
        unit(reply_may_hold_more),
        unit(reply_that_is_none_is_refused),
        unit(reply_strings_have_a_limit),
        unit(answer_is_what_the_frontend_takes),
        unit(link_gets_the_api),
        unit(link_keeps_its_fragment_last),
        unit(link_keeps_the_api_it_has),
        unit(link_is_not_misled_by_alike_names),
        unit(link_is_left_alone_unless_asked),
        unit(answer_needs_utf8),
        unit(captured_errors_are_read),
        unit(errors_of_any_shape_are_read),
        unit(other_bodies_are_no_errors),
        unit(errors_are_fit_for_a_log),
        unit(errors_are_cut),
        unit(no_wish_is_a_wish),
        unit(wish_names_one_by_any_alias),
        unit(wish_names_several),
        unit(wish_with_other_fields_is_refused),
        unit(wish_in_two_ways_is_refused),
        unit(wish_that_is_no_object_is_refused),
        unit(wish_of_other_types_is_refused),
        unit(wish_of_bad_ids_is_refused),
        unit(wish_takes_the_longest_id)
    };

    return cmocka_run_group_tests_name("api", tests, NULL, NULL);
}
