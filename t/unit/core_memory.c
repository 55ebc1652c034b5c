/*
 * Copyright (C) nginx-nango authors
 *
 * Each allocation fails once, of ours, of jansson's and of libcrypto's: what
 * is called must say so, and leave nothing behind and nothing in OpenSSL's
 * error queue.
 */

#include "memory_fault.h"

#include "nango_api.h"
#include "nango_event.h"
#include "nango_hash.h"
#include "nango_json.h"
#include "nango_signature.h"

#include <openssl/err.h>
#include <openssl/evp.h>


static int  (*once)(void);


static int
run_once(void *data)
{
    return once();
}


static void
nothing_queued(void *data, int good)
{
    assert_int_equal(ERR_peek_error(), 0);
}


/*
 * f returns 1 if it succeeded and 0 if it failed as documented; it leaves
 * nothing behind.
 */

static void
fail_each(int (*f)(void), int may_do_without)
{
    memory_test_t  test;

    memset(&test, 0, sizeof(test));

    test.run = run_once;
    test.after = nothing_queued;
    test.may_do_without = may_do_without;

    once = f;

    assert_true(memory_fail_each(&test) > 0);
}


#define EVENT                                                                 \
    "{\"type\":\"auth\",\"operation\":\"creation\",\"connectionId\":\"c\","   \
    "\"tags\":{\"a\":\"b\"}}"


static int
event_once(void)
{
    nango_event_t  ev;

    if (nango_event_parse(&ev, S(EVENT)) != 0) {
        return 0;
    }

    nango_event_free(&ev);

    return 1;
}


static void
event_parse_fails_cleanly(void **state)
{
    fail_each(event_once, 0);
}


static int
head_once(void)
{
    nango_event_t  ev;

    if (nango_event_parse_head(&ev, S(EVENT)) != 0) {
        return 0;
    }

    nango_event_free(&ev);

    return 1;
}


static void
event_head_fails_cleanly(void **state)
{
    fail_each(head_once, 0);
}


static void
event_takes_one_allocation(void **state)
{
    nango_event_t  ev;

    atomic_store(&memory_countdown, 1);
    assert_int_equal(nango_event_parse(&ev, S(EVENT)), 0);
    assert_int_equal(atomic_exchange(&memory_countdown, -1), 0);
    nango_event_free(&ev);
}


static void
event_without_meaning_takes_none(void **state)
{
    nango_event_t  ev;

    atomic_store(&memory_countdown, 0);
    assert_int_equal(nango_event_parse(&ev, S("null")), 0);
    assert_int_equal(nango_event_parse(&ev, S("{\"a\":\"b\"}")), 0);
    assert_int_equal(atomic_exchange(&memory_countdown, -1), 0);
}


static int
body_once(void)
{
    char             *body;
    size_t            len;
    const char       *error;
    nango_session_t   s;

    static const nango_str_t  ids[] = { nango_string("github") };
    static const nango_tag_t  tags[] = {
        { nango_string("end_user_id"), nango_string("42") },
        { nango_string("organization_id"), nango_string("acme") },
        { nango_string("organization_display_name"), nango_string("Acme") },
        { nango_string("plan"), nango_string("pro") }
    };
    static const nango_session_default_t  defaults[] = {
        { nango_string("github"), nango_string("user_scopes"),
          nango_null_str, nango_string("repo") },
        { nango_string("github"), nango_string("connection_config"),
          nango_string("a"), nango_string("1") }
    };
    static const nango_session_docs_t  docs[] = {
        { nango_string("github"), nango_string("https://a") }
    };

    memset(&s, 0, sizeof(s));
    s.format = NANGO_SESSION_BOTH;
    s.tags = tags;
    s.ntags = 4;
    s.integrations = ids;
    s.nintegrations = 1;
    s.defaults = defaults;
    s.ndefaults = 2;
    s.docs = docs;
    s.ndocs = 1;
    s.webhook_url = S("https://b");

    body = nango_session_body(&s, &len, &error);

    if (body == NULL) {
        assert_null(error);
        return 0;
    }

    /* jansson can leave out what it had no memory for */

    assert_str(nango_str(body, len), "{\"tags\":{\"end_user_id\":\"42\","
        "\"organization_id\":\"acme\","
        "\"organization_display_name\":\"Acme\",\"plan\":\"pro\"},"
        "\"end_user\":{\"id\":\"42\",\"tags\":{\"plan\":\"pro\"}},"
        "\"organization\":{\"id\":\"acme\",\"display_name\":\"Acme\"},"
        "\"allowed_integrations\":[\"github\"],"
        "\"integrations_config_defaults\":{\"github\":{\"user_scopes\":"
        "\"repo\",\"connection_config\":{\"a\":\"1\"}}},"
        "\"overrides\":{\"github\":{\"docs_connect\":\"https://a\"}},"
        "\"webhook_url_override\":\"https://b\"}");
    free(body);

    return 1;
}


static int
reconnect_once(void)
{
    char             *body;
    size_t            len;
    const char       *error;
    nango_session_t   s;

    memset(&s, 0, sizeof(s));
    s.connection_id = S("c");
    s.integration_id = S("github");

    body = nango_session_body(&s, &len, &error);

    if (body == NULL) {
        assert_null(error);
        return 0;
    }

    assert_str(nango_str(body, len), "{\"connection_id\":\"c\","
               "\"integration_id\":\"github\",\"tags\":{}}");
    free(body);

    return 1;
}


static void
reconnect_body_fails_cleanly(void **state)
{
    fail_each(reconnect_once, 0);
}


static void
session_body_fails_cleanly(void **state)
{
    fail_each(body_once, 0);
}


static int
reply_once(void)
{
    int                    rc;
    nango_session_reply_t  r;

    rc = nango_session_reply_parse(&r, S("{\"data\":{\"token\":\"t\","
             "\"connect_link\":\"l\",\"expires_at\":\"e\"}}"));

    if (rc != 0) {
        assert_int_equal(rc, -2);
        return 0;
    }

    nango_session_reply_free(&r);

    return 1;
}


static void
session_reply_fails_cleanly(void **state)
{
    fail_each(reply_once, 0);
}


static int
answer_once(void)
{
    char                   *answer;
    size_t                  len;
    nango_session_reply_t   r;

    memset(&r, 0, sizeof(r));
    r.token = S("t");
    r.connect_link = S("l");
    r.expires_at = S("e");

    answer = nango_session_answer(&r, S("a"), S("c"), 1, &len);
    free(answer);

    return answer != NULL;
}


static void
session_answer_fails_cleanly(void **state)
{
    fail_each(answer_once, 0);
}


static int
wish_once(void)
{
    int                    rc;
    const char            *error;
    nango_session_wish_t   wish;

    rc = nango_session_wish_parse(&wish, S("{\"integrations\":[\"a\"]}"),
                                  &error);

    if (rc != 0) {
        assert_int_equal(rc, -2);
        return 0;
    }

    nango_session_wish_free(&wish);

    return 1;
}


static void
session_wish_fails_cleanly(void **state)
{
    fail_each(wish_once, 0);
}


static int
load_once(void)
{
    json_t  *v;

    v = nango_json_load(S("{\"a\":[\"b\",1]}"));

    if (v == NULL) {
        return 0;
    }

    json_decref(v);

    return 1;
}


static void
json_load_fails_cleanly(void **state)
{
    fail_each(load_once, 0);
}


static int
connection_once(void)
{
    nango_event_t  ev;

    if (nango_event_parse_connection(&ev, S("{\"connection_id\":\"c\","
                                            "\"tags\":{\"a\":\"b\"}}"))
        != 0)
    {
        assert_null(ev.memory);
        return 0;
    }

    nango_event_free(&ev);

    return 1;
}


static void
connection_parse_fails_cleanly(void **state)
{
    fail_each(connection_once, 0);
}


static int
path_once(void)
{
    char  *path;

    path = nango_connection_path(S("c"), S("github"));

    if (path == NULL) {
        return 0;
    }

    free(path);

    return 1;
}


static void
connection_path_fails_cleanly(void **state)
{
    fail_each(path_once, 0);
}


static int
written_once(void)
{
    char           *body;
    size_t          len;
    nango_event_t   ev;

    static nango_tag_t  tags[] = {
        { nango_string("a"), nango_string("b") },
        { nango_string("c"), nango_string("d") }
    };

    memset(&ev, 0, sizeof(ev));

    ev.type = NANGO_TYPE_AUTH;
    ev.operation = NANGO_OP_REFRESH;
    ev.success = NANGO_SUCCESS_FALSE;
    ev.integration = S("github");
    ev.connection_id = S("c");
    ev.provider = S("p");
    ev.tags = tags;
    ev.ntags = 2;
    ev.error_type = S("t");
    ev.error_text = S("x");

    body = nango_event_body(&ev, S("prod"), &len);

    if (body == NULL) {
        return 0;
    }

    /* jansson can leave out what it had no memory for */

    assert_str(nango_str(body, len), "{\"connectionId\":\"c\","
        "\"environment\":\"prod\",\"error\":{\"description\":\"x\","
        "\"type\":\"t\"},\"from\":\"nango-edge\","
        "\"operation\":\"refresh\",\"provider\":\"p\","
        "\"providerConfigKey\":\"github\",\"success\":false,"
        "\"tags\":{\"a\":\"b\",\"c\":\"d\"},\"type\":\"auth\"}");
    free(body);

    return 1;
}


static void
event_body_fails_cleanly(void **state)
{
    fail_each(written_once, 0);
}


static int
hash_once(void)
{
    unsigned char  key[NANGO_KEY_LEN];

    return nango_connection_key(key, S("a"), S("b"), S("c")) == 0;
}


static void
hash_fails_cleanly(void **state)
{
    fail_each(hash_once, 1);
}


static int
keys_once(void)
{
    int            good;
    char           key[100];
    nango_keys_t  *keys;

    memset(key, 'k', sizeof(key));
    keys = nango_keys_create();

    if (keys == NULL) {
        return 0;
    }

    good = nango_keys_add(keys, S("key")) == 0
           && nango_keys_add(keys, nango_str(key, sizeof(key))) == 0;

    nango_keys_free(keys);

    return good;
}


static void
keys_fail_cleanly(void **state)
{
    fail_each(keys_once, 1);
}


static nango_keys_t   *shared;
static unsigned char   mac[NANGO_HMAC_LEN];


static int
verify_once(void)
{
    int  rc;

    rc = nango_verify(shared, S("body"), mac);
    assert_int_not_equal(rc, 0);

    return rc == 1;
}


static void
verify_fails_cleanly(void **state)
{
    shared = nango_keys_create();
    assert_int_equal(nango_keys_add(shared, S("other")), 0);
    assert_int_equal(nango_sign(shared, S("body"), mac), 0);
    assert_int_equal(nango_keys_add(shared, S("key")), 0);
    fail_each(verify_once, 0);
    nango_keys_free(shared);
}


static int
pieces_once(void)
{
    int              rc;
    nango_verify_t  *v;

    v = nango_verify_start(shared);

    if (v == NULL) {
        return 0;
    }

    if (nango_verify_update(v, "bo", 2) != 0
        || nango_verify_update(v, "dy", 2) != 0)
    {
        nango_verify_abort(v);
        return 0;
    }

    rc = nango_verify_finish(v, mac);
    assert_int_not_equal(rc, 0);

    return rc == 1;
}


static void
verify_in_pieces_fails_cleanly(void **state)
{
    shared = nango_keys_create();
    assert_int_equal(nango_keys_add(shared, S("other")), 0);
    assert_int_equal(nango_sign(shared, S("body"), mac), 0);
    assert_int_equal(nango_keys_add(shared, S("key")), 0);
    fail_each(pieces_once, 0);
    nango_keys_free(shared);
}


static int
sign_once(void)
{
    return nango_sign(shared, S("body"), mac) == 0;
}


static void
sign_fails_cleanly(void **state)
{
    shared = nango_keys_create();
    assert_int_equal(nango_keys_add(shared, S("key")), 0);
    fail_each(sign_once, 0);
    nango_keys_free(shared);
}


#define unit(f)  cmocka_unit_test(f)

int
main(void)
{
    const struct CMUnitTest  tests[] = {
        unit(hash_fails_cleanly),
        unit(keys_fail_cleanly),
        unit(verify_fails_cleanly),
        unit(verify_in_pieces_fails_cleanly),
        unit(sign_fails_cleanly),
        unit(event_parse_fails_cleanly),
        unit(event_head_fails_cleanly),
        unit(event_takes_one_allocation),
        unit(event_without_meaning_takes_none),
        unit(session_body_fails_cleanly),
        unit(reconnect_body_fails_cleanly),
        unit(session_reply_fails_cleanly),
        unit(session_answer_fails_cleanly),
        unit(session_wish_fails_cleanly),
        unit(connection_parse_fails_cleanly),
        unit(connection_path_fails_cleanly),
        unit(event_body_fails_cleanly),
        unit(json_load_fails_cleanly)
    };

    if (memory_skipped()) {
        return 0;
    }

    /* libcrypto 3.0 itself does not survive a failure in its first fetch */

    EVP_MD_free(EVP_MD_fetch(NULL, "SHA256", NULL));
    ERR_clear_error();

    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
