/*
 * Copyright (C) nginx-nango authors
 *
 * The credentials in Nango's reply about a connection, of each kind that there
 * is, and what a provider could have put into them.
 */


#include "core_test.h"

#include "nango_credential.h"


typedef struct {
    const char  *credentials;
    const char  *secret;
    const char  *authorization;     /* "": none */
} kind_t;


static unsigned char  buf[16384];
static uint64_t       expires;


static nango_str_t
pack(const char *credentials, const char *config)
{
    char    *reply;
    int      rc;
    size_t   len, size;

    size = strlen(credentials) + strlen(config) + 256;
    reply = malloc(size);
    assert_non_null(reply);

    (void) snprintf(reply, size,
                    "{\"id\":1,\"connection_id\":\"c-1\","
                    "\"provider_config_key\":\"github\",\"provider\":"
                    "\"github\",\"credentials\":%s,\"connection_config\":%s}",
                    credentials, config);

    rc = nango_credential_pack(Z(reply), S("github"), S("c-1"), buf,
                               sizeof(buf), &len, &expires);
    free(reply);

    assert_int_equal(rc, 0);

    return nango_str(buf, len);
}


static void
assert_authorization(nango_str_t packed, const char *expected)
{
    size_t         len;
    unsigned char  dst[1024];

    len = nango_credential_authorization(packed, NULL);
    assert_int_equal(len, strlen(expected));

    memset(dst, 'x', sizeof(dst));
    assert_int_equal(nango_credential_authorization(packed, dst), len);
    assert_memory_equal(dst, expected, len);
    assert_int_equal(dst[len], 'x');
}


static void
each_kind_has_its_secret_and_its_header(void **state)
{
    size_t       i;
    nango_str_t  packed, secret;

    static const kind_t  kinds[] = {
        { "{\"type\":\"OAUTH2\",\"access_token\":\"gho_1\","
          "\"refresh_token\":\"r\",\"expires_at\":null,"
          "\"raw\":{\"access_token\":\"other\"}}",
          "gho_1", "Bearer gho_1" },
        { "{\"type\":\"OAUTH2_CC\",\"token\":\"cc\",\"client_id\":\"i\","
          "\"client_secret\":\"s\"}", "cc", "Bearer cc" },
        { "{\"type\":\"OAUTH1\",\"oauth_token\":\"t\","
          "\"oauth_token_secret\":\"s\"}", "t", "" },
        { "{\"type\":\"API_KEY\",\"apiKey\":\"key\"}", "key", "Bearer key" },
        { "{\"type\":\"BASIC\",\"username\":\"me\",\"password\":\"pw\"}",
          "pw", "Basic bWU6cHc=" },
        { "{\"type\":\"BASIC\",\"username\":\"me\",\"password\":\"\"}",
          "", "Basic bWU6" },
        { "{\"type\":\"BASIC\",\"username\":\"m\\u00e9\",\"password\":\"pw\"}",
          "pw", "Basic bcOpOnB3" },
        { "{\"type\":\"BASIC\",\"password\":\"pw\"}", "pw", "" },
        { "{\"type\":\"APP\",\"access_token\":\"ghs\"}", "ghs", "Bearer ghs" },
        { "{\"type\":\"APP_STORE\",\"accessToken\":\"as\","
          "\"privateKey\":\"k\"}", "as", "Bearer as" },
        { "{\"type\":\"JWT\",\"token\":\"ey.x.y\"}",
          "ey.x.y", "Bearer ey.x.y" },
        { "{\"type\":\"TWO_STEP\",\"token\":\"ts\",\"user\":\"u\"}",
          "ts", "Bearer ts" },
        { "{\"type\":\"SIGNATURE\",\"username\":\"u\",\"password\":\"pw\","
          "\"token\":\"st\"}", "st", "Bearer st" },
        { "{\"type\":\"SIGNATURE\",\"username\":\"u\",\"password\":\"pw\"}",
          NULL, "" },
        { "{\"type\":\"BILL\",\"session_id\":\"sid\",\"username\":\"u\","
          "\"password\":\"pw\"}", "sid", "Bearer sid" },
        { "{\"type\":\"TBA\",\"token_id\":\"i\",\"token_secret\":\"s\"}",
          NULL, "" },
        { "{\"type\":\"CUSTOM\",\"app\":{\"access_token\":\"x\"}}",
          NULL, "" },
        { "{\"type\":\"NONE\"}", NULL, "" },
        { "{}", NULL, "" },
        { "{\"type\":\"OAUTH2\",\"access_token\":\"\"}", NULL, "" },
        { "{\"type\":\"OAUTH2\",\"access_token\":null}", NULL, "" },
        { "{\"type\":\"OAUTH2\",\"access_token\":[\"a\"]}", NULL, "" },
        { "{\"access_token\":\"a\",\"access_token\":\"b\"}",
          "b", "Bearer b" }
    };

    for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        packed = pack(kinds[i].credentials, "{}");
        secret = nango_credential_secret(packed);

        if (kinds[i].secret == NULL) {
            assert_int_equal(secret.len, 0);

        } else {
            assert_str_at(secret, Z(kinds[i].secret), kinds[i].credentials,
                          __LINE__);
        }

        assert_authorization(packed, kinds[i].authorization);
    }
}


static void
members_are_found_by_their_names(void **state)
{
    nango_str_t  p;

    p = pack("{\"type\":\"OAUTH2\",\"Access_Token\":\"a\",\"n\":-1.5e3,"
             "\"yes\":true,\"raw\":{\"n\":1},\"a\\u0062\":\"c\"}",
             "{\"subdomain\":\"acme\",\"port\":8080,\"list\":[1],\"x\":null}");

    assert_str(nango_credential_field(p, S("access_token")), "a");
    assert_str(nango_credential_field(p, S("N")), "-1.5e3");
    assert_str(nango_credential_field(p, S("yes")), "true");
    assert_str(nango_credential_field(p, S("ab")), "c");
    assert_absent(nango_credential_field(p, S("raw")));
    assert_absent(nango_credential_field(p, S("subdomain")));
    assert_absent(nango_credential_field(p, S("")));
    assert_absent(nango_credential_field(p, S("access_toke")));

    assert_str(nango_config_field(p, S("SubDomain")), "acme");
    assert_str(nango_config_field(p, S("port")), "8080");
    assert_absent(nango_config_field(p, S("list")));
    assert_absent(nango_config_field(p, S("x")));
    assert_absent(nango_config_field(p, S("type")));
}


/* They would be lines of their own in a header. */

static void
values_with_control_characters_are_left_out(void **state)
{
    size_t       i;
    nango_str_t  p;
    char         text[256];

    static const char  *bad[] = {
        "a\\r\\nX-Admin: 1", "a\\nb", "\\u000a", "a\\u0000b", "\\u007f",
        "a\\tb", "\\u001b[0m", "\\ud800", "\\udc00x"
    };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text),
                 "{\"type\":\"OAUTH2\",\"access_token\":\"%s\","
                 "\"username\":\"u\",\"b\":\"c\"}", bad[i]);

        p = pack(text, text);

        assert_absent(nango_credential_field(p, S("access_token")));
        assert_absent(nango_config_field(p, S("access_token")));
        assert_int_equal(nango_credential_secret(p).len, 0);
        assert_authorization(p, "");
        assert_str(nango_credential_field(p, S("b")), "c");
    }
}


static void
replies_about_another_connection_are_none(void **state)
{
    size_t    i, len;
    nango_str_t  reply;

    static const char  *bad[] = {
        "", "null", "[]", "\"x\"", "{}", "{", "{\"connection_id\":\"c-1\"}",
        "{\"connection_id\":\"c-2\",\"provider_config_key\":\"github\","
        "\"credentials\":{}}",
        "{\"connection_id\":\"c-1\",\"provider_config_key\":\"Github\","
        "\"credentials\":{}}",
        "{\"connection_id\":\"c-1\",\"provider_config_key\":\"github\"}",
        "{\"connection_id\":\"c-1\",\"provider_config_key\":\"github\","
        "\"credentials\":null}",
        "{\"connection_id\":\"c-1\",\"provider_config_key\":\"github\","
        "\"credentials\":\"{}\"}",
        "{\"connection_id\":\"c-1\\u0000\",\"provider_config_key\":"
        "\"github\",\"credentials\":{}}",
        "{\"connection_id\":1,\"provider_config_key\":\"github\","
        "\"credentials\":{}}",
        "{\"connection_id\":\"c-1\",\"connection_id\":\"c-2\","
        "\"provider_config_key\":\"github\",\"credentials\":{}}"
    };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        reply = exact(Z(bad[i]));
        len = 1;

        if (nango_credential_pack(reply, S("github"), S("c-1"), buf,
                                  sizeof(buf), &len, &expires)
            != -1)
        {
            fail_msg("taken: %s", bad[i]);
        }

        assert_int_equal(len, 0);
        exact_free(reply);
    }
}


/* Into any room it fits or not, and never beyond. */

static void
what_is_too_long_is_refused(void **state)
{
    int             rc;
    size_t          size, len, whole;
    nango_str_t     reply, packed;
    unsigned char  *dst;

    reply = S("{\"connection_id\":\"c-1\",\"provider_config_key\":\"github\","
              "\"credentials\":{\"type\":\"BASIC\",\"username\":\"me\","
              "\"password\":\"secret\"},\"connection_config\":{\"a\":\"b\"}}");

    assert_int_equal(nango_credential_pack(reply, S("github"), S("c-1"), buf,
                                           sizeof(buf), &whole, &expires), 0);

    for (size = 0; size < whole + 32; size++) {
        dst = malloc(size ? size : 1);
        assert_non_null(dst);

        rc = nango_credential_pack(reply, S("github"), S("c-1"), dst, size,
                                   &len, &expires);

        if (rc == 0) {
            assert_int_equal(len, whole);
            packed = nango_str(dst, len);
            assert_str(nango_config_field(packed, S("a")), "b");

        } else {
            assert_int_equal(rc, -2);
            assert_int_equal(len, 0);
        }

        assert_true(rc == 0 || size < whole + 16);
        free(dst);
    }
}


/* What is not whole is not read beyond its end. */

static void
half_of_what_was_packed_is_read_as_far_as_it_goes(void **state)
{
    size_t       i;
    nango_str_t  p, part;

    p = pack("{\"type\":\"BASIC\",\"username\":\"me\",\"password\":\"pw\"}",
             "{\"a\":\"b\"}");

    for (i = 0; i < p.len; i++) {
        part = exact(nango_str(p.data, i));

        (void) nango_credential_secret(part);
        (void) nango_credential_authorization(part, NULL);
        assert_absent(nango_config_field(part, S("a")));

        exact_free(part);
    }

    assert_int_equal(nango_credential_secret(nango_str(NULL, 0)).len, 0);
}


static void
the_end_is_read_as_javascript_writes_it(void **state)
{
    size_t  i;
    char    text[128];

    static const struct {
        const char  *at;
        uint64_t     ms;
    } times[] = {
        { "\"2026-11-23T08:27:08.159Z\"", 1795422428000 },
        { "\"2026-11-23T08:27:08Z\"", 1795422428000 },
        { "\"2026-11-23T08:27:08.159+00:00\"", 1795422428000 },
        { "\"1970-01-01T00:00:01Z\"", 1000 },
        { "\"2000-02-29T00:00:00Z\"", 951782400000 },

        { "\"2026-11-23T08:27:08.159+01:00\"", 0 },
        { "\"2026-11-23T08:27:08\"", 0 },
        { "\"2026-11-23 08:27:08Z\"", 0 },
        { "\"2026-11-23\"", 0 },
        { "\"1969-12-31T23:59:59Z\"", 0 },
        { "\"1970-01-01T00:00:00Z\"", 0 },
        { "\"2026-00-23T08:27:08Z\"", 0 },
        { "\"2026-1x-23T08:27:08Z\"", 0 },
        { "\"2026-11-23T0-:27:08Z\"", 0 },
        { "\"-026-11-23T08:27:08Z\"", 0 },
        { "\"Z\"", 0 }, { "\"\"", 0 }, { "null", 0 }, { "1795422428", 0 },
        { "true", 0 }, { "{}", 0 }
    };

    for (i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        snprintf(text, sizeof(text), "{\"expires_at\":%s}", times[i].at);
        (void) pack(text, "{}");

        if (expires != times[i].ms) {
            fail_msg("%s: %llu", times[i].at, (unsigned long long) expires);
        }
    }

    (void) pack("{\"type\":\"API_KEY\"}",
                "{\"expires_at\":\"2026-11-23T08:27:08Z\"}");
    assert_int_equal(expires, 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(each_kind_has_its_secret_and_its_header),
        cmocka_unit_test(members_are_found_by_their_names),
        cmocka_unit_test(values_with_control_characters_are_left_out),
        cmocka_unit_test(replies_about_another_connection_are_none),
        cmocka_unit_test(what_is_too_long_is_refused),
        cmocka_unit_test(half_of_what_was_packed_is_read_as_far_as_it_goes),
        cmocka_unit_test(the_end_is_read_as_javascript_writes_it)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
